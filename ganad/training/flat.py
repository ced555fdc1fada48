"""A guard against reconstructions that show nothing of the images, looked at without labels."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ganad.detectors.gradient import GradientDetector

BLANK = 1e-6
"""Images whose values vary less than this around their mean have nothing to rebuild."""


def why_flat(detector: GradientDetector[Any], images: Tensor) -> str | None:
    """Compare the reconstructions of held-out images, or of their maps, with each image's own flat
    colour: a sentence if they are no nearer to the images, else None.

    No single colour is nearer in squared error than the mean of each channel is. So a generator
    that makes grey rectangles of all images is always found.
    images: uint8 (n, c, h, w), or raw maps (see GradientDetector.represent); at most a batch.
    """
    if not detector.rebuilds:
        return None
    with detector.scoring():
        inputs = detector.inputs(detector.patches(images)[: detector.scoring_batch])
        rebuilt = detector.reconstruct(inputs).float()
    variance, rebuilt_variance = _variance(inputs), _variance(rebuilt)
    error = float((inputs - rebuilt).square().mean())
    if variance < BLANK or error < variance:
        return None
    return (
        f"collapse: held-out images are rebuilt no better than by their own flat colour "
        f"(mean (x − x̂)² {error:.3g} against {variance:.3g}; their reconstructions have "
        f"{(rebuilt_variance / variance) ** 0.5:.0%} of their contrast): train for more epochs or "
        f"change learning_rate"
    )


def _variance(images: Tensor) -> float:
    """The mean square distance from the mean of each image's channel."""
    return float((images - images.mean((2, 3), keepdim=True)).square().mean())
