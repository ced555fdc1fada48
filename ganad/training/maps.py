"""Training on dense maps of a frozen network: which images keep theirs, and what is fitted to them
before the first step and after the last one.

    images = keep_maps(detector, images)     # raw maps, made once, where they can be kept
    fit_maps(detector, moments_of(detector, images, training))
    ...                                           # training
    fit_scale(detector, images, validation)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ganad.detectors.gradient import GradientDetector
from ganad.errors import TrainingError
from ganad.features.maps import ChannelMoments
from ganad.images.protocol import Images, pieces
from ganad.images.shards import Shards


def can_keep_maps(detector: GradientDetector[Any]) -> bool:
    """True if maps are all that the networks see, and the same in every epoch: without windows,
    which are drawn at random, and without augmentation. Else maps are made in each step."""
    config = detector.config
    return detector.sees_maps and config.patch is None and not config.augment.any


def keep_maps(detector: GradientDetector[Any], images: Images) -> Images:
    """The raw maps of all images, in memory, or the images where maps cannot be kept."""
    if detector.maps is None or not can_keep_maps(detector):
        return images
    with detector.scoring():
        raw = [detector.represent(chunk).cpu().numpy() for chunk in _chunks(images)]
    return Shards(raw)


def image_moments(raw: Tensor, num_images: int) -> np.ndarray:
    """Raw maps (n·p, C, h, w), p windows of each image, -> float64 (n, 2, C): by image the mean and
    the variance of each channel over all places.

    By image, so that any split of a data set can be standardised from the same numbers.
    """
    by_image = raw.double().unflatten(0, (num_images, -1))
    mean = by_image.mean((1, 3, 4))
    variance = (by_image - mean[:, None, :, None, None]).square().mean((1, 3, 4))
    return torch.stack([mean, variance], 1).cpu().numpy()


def moments_of(
    detector: GradientDetector[Any], images: Images, positions: np.ndarray
) -> Iterator[np.ndarray]:
    """image_moments of the images, or raw maps, at these positions, piece by piece."""
    for chunk in _chunks(images, positions):
        with detector.scoring():
            raw = chunk
            if chunk.dtype == torch.uint8:
                raw = detector.raw_maps(detector.prepare(detector.patches(chunk)))
            yield image_moments(raw, len(chunk))


def fit_maps(detector: GradientDetector[Any], moments: Iterable[np.ndarray]) -> None:
    """Standardise a detector's maps by the image_moments of its training images, in any pieces.

    Raises TrainingError if there are none, or if the frozen network gives values that are not
    finite.
    """
    assert detector.maps is not None
    num, mean, squares = 0, np.zeros(detector.maps.channels), np.zeros(detector.maps.channels)
    # Image by image, so that the last bits do not depend on the pieces (Welford 1962).
    for of_image, variance in (image for piece in moments for image in piece):
        num += 1
        step = of_image - mean
        mean = mean + step / num
        squares = squares + variance + step * (of_image - mean)
    if num == 0:
        raise TrainingError("no training images are left after the split: give more images")
    if not np.isfinite(squares).all():
        raise TrainingError(
            f"{detector.name}: the network gives training images features that are not finite: "
            f"set precision to float32 or use other weights"
        )
    detector.maps.fit(ChannelMoments(num, mean, squares))


def fit_scale(detector: GradientDetector[Any], images: Images, positions: np.ndarray) -> None:
    """Standardise a detector's terms by the images, or raw maps, at these positions: normal ones
    that did not train it. Without any, terms are summed as they are."""
    if detector.scale is None or not len(positions):
        return
    terms = [detector.score(chunk).terms for chunk in _chunks(images, positions)]
    detector.scale.fit({name: np.concatenate([part[name] for part in terms]) for name in terms[0]})


def _chunks(images: Images, positions: np.ndarray | None = None) -> Iterator[Tensor]:
    chosen = np.arange(len(images)) if positions is None else positions
    for some in pieces(images, len(chosen)):
        yield torch.from_numpy(images.take(chosen[some]))
