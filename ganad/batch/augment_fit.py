"""Training images varied for a fit by statistics: the pipeline of the augmented fit of Rippel et
al. (ICPR 2020), whose repetitions make a few hundred normal images into tens of thousands.

What becomes of an image depends on the seed, the repetition and its own pixels alone, so a fit does
not depend on how the images were cut into pieces.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from ganad.batch.config import AugmentedFit

APPLIED = 0.5
"""Share of the images that go through the pipeline at all."""
HUE_DEGREES = 20.0
"""The authors' ±10 are in OpenCV's units of two degrees."""
TILES, CLIP = 8, 2.0
"""Of the local equalisation: a grid of 8×8, no grey level counted more than twice the mean."""
TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


def passes(images: Tensor, how: AugmentedFit, seed: int) -> Iterator[Tensor]:
    """uint8 (n, c, h, w) -> what each pass over them sees, the same shape."""
    if how.repeats == 0:
        yield images
        return
    pixels = images.cpu().numpy()
    for number in range(how.repeats):
        yield torch.from_numpy(np.stack([vary(one, how, seed, number) for one in pixels]))


def vary(image: np.ndarray, how: AugmentedFit, seed: int, repetition: int) -> np.ndarray:
    """uint8 (c, h, w) -> the same shape."""
    digest = hashlib.blake2b(f"{seed}:{repetition}:".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).tobytes())
    rng = np.random.default_rng(int.from_bytes(digest.digest(), "big"))
    if rng.random() >= APPLIED:
        return image
    x = image.astype(np.float32)
    if rng.random() < 0.2:
        x = _blurred(x, rng)
    if rng.random() < 0.3:
        x = _contrasted(x, rng)
    if rng.random() < 0.3:
        x = _tinted(x, rng)
    if rng.random() < 0.2:
        x = x + rng.normal(0, rng.uniform(3, 10), x.shape).astype(np.float32)
    if how.flip and rng.random() < 0.5:
        x = x[:, :, ::-1]
    if how.quarter_turns and rng.random() < 0.5:
        x = np.rot90(x, int(rng.integers(1, 4)), (1, 2))
    if how.move_edges and rng.random() < 0.2:
        x = _moved(x, how.rotate, rng)
    return np.ascontiguousarray(np.clip(np.rint(x), 0, 255).astype(np.uint8))


def _blurred(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Along a line, by a median or by a mean of 3×3."""
    kind = rng.choice(["motion", "median", "mean"], p=[0.5, 0.25, 0.25])
    if kind == "median":
        return ndimage.median_filter(x, (1, 3, 3))
    if kind == "mean":
        return ndimage.uniform_filter(x, (0, 3, 3))
    length = int(rng.choice([3, 5, 7]))
    level = np.zeros((length, length), np.float32)
    level[length // 2] = 1
    upright, slanting = level.T, np.eye(length, dtype=np.float32)
    line = (level, upright, slanting)[int(rng.integers(3))] / length
    return ndimage.convolve(x, line[None], mode="mirror")


def _contrasted(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Equalised locally, sharpened, embossed, or of another brightness and contrast."""
    kind = rng.integers(4)
    if kind == 0:
        grey = x.mean(0)
        return x * ((_equalised(grey) + 1) / (grey + 1))
    if kind == 1:
        return x + rng.uniform(0.2, 0.5) * 8 * (x - ndimage.uniform_filter(x, (0, 3, 3)))
    if kind == 2:
        relief = np.array([[-1, -1, 0], [-1, 1, 1], [0, 1, 1]], np.float32)
        strength = rng.uniform(0.2, 0.7)
        relief = strength * relief
        relief[1, 1] = 1
        return ndimage.convolve(x, relief[None], mode="mirror")
    return x * (1 + rng.uniform(-0.2, 0.2)) + 255 * rng.uniform(-0.2, 0.2)


def _equalised(grey: np.ndarray) -> np.ndarray:
    """Contrast-limited adaptive equalisation (Zuiderveld 1994) of float (h, w) in 0..255."""
    height, width = grey.shape
    tiles = min(TILES, height // 4, width // 4)
    if tiles < 1:
        return grey
    levels = np.clip(grey, 0, 255).astype(np.uint8)
    tables = np.empty((tiles, tiles, 256), np.float32)
    for i, rows in enumerate(np.array_split(levels, tiles, 0)):
        for j, tile in enumerate(np.array_split(rows, tiles, 1)):
            counts = np.bincount(tile.ravel(), minlength=256).astype(np.float32)
            limit = max(CLIP * tile.size / 256, 1.0)
            excess = np.maximum(counts - limit, 0).sum()
            tables[i, j] = np.cumsum(np.minimum(counts, limit) + excess / 256) * 255 / tile.size
    # Between the centres of tiles the tables are mixed, or the grid would show.
    row = np.clip((np.arange(height) + 0.5) * tiles / height - 0.5, 0, tiles - 1)
    column = np.clip((np.arange(width) + 0.5) * tiles / width - 0.5, 0, tiles - 1)
    top, left = row.astype(int)[:, None], column.astype(int)[None]
    bottom, right = np.minimum(top + 1, tiles - 1), np.minimum(left + 1, tiles - 1)
    down, across = row[:, None] - top, column[None] - left
    upper = tables[top, left, levels] * (1 - across) + tables[top, right, levels] * across
    lower = tables[bottom, left, levels] * (1 - across) + tables[bottom, right, levels] * across
    return upper * (1 - down) + lower * down


def _tinted(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Hues turned by up to HUE_DEGREES about grey, and all made lighter or darker by up to 10."""
    turn, light = np.radians(rng.uniform(-HUE_DEGREES, HUE_DEGREES)), rng.uniform(-10, 10)
    if len(x) == 3:
        cos, sin = np.cos(turn), np.sin(turn)
        about_grey = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
        matrix = np.linalg.inv(TO_YIQ) @ about_grey @ TO_YIQ
        x = np.tensordot(matrix.astype(np.float32), x, 1)
    return x + np.float32(light)


def _moved(x: np.ndarray, rotate: float, rng: np.random.Generator) -> np.ndarray:
    """Turned by up to ±rotate degrees, shifted by up to 5 % and scaled by −5 … 10 %."""
    angle = np.radians(rng.uniform(-rotate, rotate))
    sides = np.array(x.shape[1:])
    shift = rng.uniform(-0.05, 0.05, 2) * sides
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.array([[cos, -sin], [sin, cos]]) / (1 + rng.uniform(-0.05, 0.10))
    centre = (sides - 1) / 2
    offset = centre - matrix @ (centre + shift)
    return np.stack(
        [ndimage.affine_transform(one, matrix, offset, order=1, mode="mirror") for one in x]
    )
