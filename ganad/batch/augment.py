"""Training images varied batch by batch, on the device: for methods trained by gradient.

What is drawn is a function of (seed, step) and drawn for the whole batch (see
ganad.batch.ranks), so a resumed run, and one on several workers, varies each image alike.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ganad.batch.config import Augment
from ganad.batch.ranks import Ranks

NUM_DRAWS = 6


def augment(images: Tensor, config: Augment, ranks: Ranks) -> Tensor:
    """Prepared images, float (n, c, s, s) in [-1, 1] -> the same shape and range, each varied by
    itself."""
    if not config.any:
        return images
    drawn = ranks.uniform(len(images), NUM_DRAWS, device=images.device)
    left_right, top_bottom, turn, right, down, light = drawn.to(images.dtype).unbind(1)
    if config.flip_horizontal:
        images = torch.where(_by_image(left_right < 0.5), images.flip(3), images)
    if config.flip_vertical:
        images = torch.where(_by_image(top_bottom < 0.5), images.flip(2), images)
    if config.rotate or config.shift:
        angle = (2 * turn - 1) * math.radians(config.rotate)
        # Coordinates run from -1 to 1, so a side is 2 long.
        x, y = ((2 * some - 1) * 2 * config.shift for some in (right, down))
        images = _moved(images, angle, x, y)
    if config.brightness:
        images = images + _by_image((2 * light - 1) * 2 * config.brightness)
    return images.clamp(-1, 1)


def _by_image(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _moved(images: Tensor, angle: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Turned by angle (n,) in radians about the centre, then moved by x and y, each (n,)."""
    cos, sin = angle.cos(), angle.sin()
    # For each place in the result, where in the image it comes from.
    rows = [
        torch.stack([cos, sin, -cos * x - sin * y], 1),
        torch.stack([-sin, cos, sin * x - cos * y], 1),
    ]
    places = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return F.grid_sample(images, places, padding_mode="reflection", align_corners=False)
