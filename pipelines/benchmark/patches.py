"""What patches cost: pixels per second of scoring with and without them, side by side.

Run: ganad benchmark patches DETECTOR --set image_size=256 --set patch.size=64
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from ganad.detectors import configure, create
from ganad.detectors.base import Detector
from ganad.detectors.gradient import GradientDetector
from ganad.detectors.settings import merge_settings
from ganad.errors import ConfigError

NUM_INPUTS = 512
"""What the networks see in a round, one way and the other."""


def patches(name: str, settings: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    """Score the same number of network inputs as whole images and as patches of larger ones.

    The networks and weights are the same (fresh ones: speed does not depend on them). Rounds
    alternate, and the figures are medians. Raises ConfigError for settings without patch.size, and
    for a detector that must be fitted before it scores.
    """
    values = merge_settings(name, assignments=settings)
    config = configure(name, values)
    if config.patch is None:
        raise ConfigError(f"{name} has no patches in these settings: add --set patch.size=64")
    size = config.patch.size
    whole = create(name, configure(name, {**values, "image_size": size, "patch": None}))
    patched = create(name, config)
    if not isinstance(whole, GradientDetector):
        raise ConfigError(f"{name} must be fitted before it scores: name a method with networks")
    pixels = torch.randint(0, 256, (1, config.channels, config.image_size, config.image_size))
    num_patches = len(patched.patches(pixels))
    num_images = max(1, NUM_INPUTS // num_patches)
    large = pixels.to(torch.uint8).expand(num_images, -1, -1, -1).contiguous()
    small = patched.patches(large)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    seconds: dict[str, list[float]] = {"whole images": [], "patches": []}
    for detector in (whole, patched):
        detector.to(device).to(memory_format=torch.channels_last)
    for _ in range(rounds + 1):
        seconds["whole images"].append(_time(whole, small))
        seconds["patches"].append(_time(patched, large))
    rows: list[dict[str, Any]] = []
    for way, shape in (("whole images", small.shape), ("patches", large.shape)):
        median = sorted(seconds[way][1:])[rounds // 2]  # the first round warms up
        rows.append(
            {
                "scored as": way,
                "images": shape[0],
                "image_size": shape[-1],
                "megapixels_per_s": round(small.shape[0] * size**2 / median / 1e6, 3),
            }
        )
    for row in rows:
        row["share"] = round(row["megapixels_per_s"] / rows[0]["megapixels_per_s"], 3)
    return rows


def _time(detector: Detector[Any], images: torch.Tensor) -> float:
    began = time.perf_counter()
    detector.score(images)
    return time.perf_counter() - began
