"""Images seen through square windows: where they lie, and how what a detector says of them becomes
what it says of the image. AnoGAN (Schlegl et al., IPMI 2017) works on patches; here any method can.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ganad.batch.config import PatchConfig, corners


def cut(images: Tensor, patch: PatchConfig) -> Tensor:
    """Images n×c×S×S -> their windows, (n·p)×c×s×s, those of an image one after another."""
    side = patch.size
    windows = [
        images[:, :, top : top + side, left : left + side]
        for top, left in corners(images.shape[-1], patch)
    ]
    return torch.stack(windows, 1).flatten(0, 1)


def weights(scores: np.ndarray, patch: PatchConfig) -> np.ndarray:
    """Scores of windows (n, p) -> the share of each in the image's score, (n, p).

    The image's terms are the same shares of its windows' terms: they explain that score.
    """
    num_counted = patch.num_counted(scores.shape[1])
    worst = np.argsort(-scores, axis=1, kind="stable")[:, :num_counted]
    shares = np.zeros(scores.shape)
    np.put_along_axis(shares, worst, 1 / num_counted, axis=1)
    return shares


def stitch(windows: Tensor, image_size: int, patch: PatchConfig) -> Tensor:
    """What cut took apart, put together: (n·p)×c×s×s -> n×c×S×S, means where windows overlap."""
    places = corners(image_size, patch)
    by_image = windows.unflatten(0, (-1, len(places)))
    shape = (len(by_image), windows.shape[1], image_size, image_size)
    total = windows.new_zeros(shape)
    covered = windows.new_zeros(shape[2:])
    side = patch.size
    for number, (top, left) in enumerate(places):
        total[:, :, top : top + side, left : left + side] += by_image[:, number]
        covered[top : top + side, left : left + side] += 1
    return total / covered


def draw(
    generator: np.random.Generator, num: int, image_size: int, patch: PatchConfig
) -> np.ndarray:
    """Places of windows to train on, uniform over the image: int (num, 2), top and left."""
    return generator.integers(0, image_size - patch.size, size=(num, 2), endpoint=True)
