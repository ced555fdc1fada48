"""What patches cost: pixels per second of scoring with and without them, and the memory.

Run: ganad benchmark patches DETECTOR --set image_size=256 --set patch.size=64
"""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from typing import Any

import torch

from ganad.detectors import configure, create
from ganad.detectors.base import Detector, StatisticsDetector
from ganad.detectors.settings import merge_settings
from ganad.errors import ConfigError

NUM_INPUTS = 512
"""What the networks see in a round, one way and the other."""
NUM_FITTED = 64


def patches(name: str, settings: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    """Score the same number of network inputs as whole images and as patches of larger ones.

    The networks and weights are the same (fresh ones, or fitted to noise: speed does not depend on
    them). Rounds alternate, and the figures are medians. Memory is the process's resident peak up
    to and including that way, in MiB. Raises ConfigError for settings without patch.size.
    """
    values = merge_settings(name, assignments=settings)
    config = configure(name, values)
    if config.patch is None:
        raise ConfigError(f"{name} has no patches in these settings: add --set patch.size=64")
    size = config.patch.size
    whole = create(name, configure(name, {**values, "image_size": size, "patch": None}))
    patched = create(name, config)
    pixels = torch.randint(0, 256, (1, config.channels, config.image_size, config.image_size))
    num_patches = len(patched.patches(pixels))
    num_images = max(1, NUM_INPUTS // num_patches)
    large = pixels.to(torch.uint8).expand(num_images, -1, -1, -1).contiguous()
    small = patched.patches(large)
    if isinstance(whole, StatisticsDetector) and isinstance(patched, StatisticsDetector):
        noise = torch.randint(0, 256, (NUM_FITTED, *small.shape[1:])).to(torch.uint8)
        statistics = whole.observe(whole.begin(noise), noise)
        for fitted in (whole, patched):
            fitted.finish(statistics)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    ways: dict[str, tuple[Detector[Any], torch.Tensor, bool]] = {
        "whole images": (whole, small, False),
        "patches": (patched, large, False),
        "patches, with heat maps": (patched, large, True),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    peaks: dict[str, int] = {}
    for detector in (whole, patched):
        detector.to(device).to(memory_format=torch.channels_last)
    for _ in range(rounds + 1):
        for way, (detector, images, maps) in ways.items():
            seconds[way].append(_time(detector, images, maps))
            peaks.setdefault(way, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
    rows: list[dict[str, Any]] = []
    for way, (_, images, _) in ways.items():
        median = sorted(seconds[way][1:])[rounds // 2]  # the first round warms up
        rows.append(
            {
                "scored as": way,
                "images": images.shape[0],
                "image_size": images.shape[-1],
                "megapixels_per_s": round(small.shape[0] * size**2 / median / 1e6, 3),
            }
        )
    for row in rows:
        row["share"] = round(row["megapixels_per_s"] / rows[0]["megapixels_per_s"], 3)
        row["peak_mib"] = peaks[row["scored as"]]
    return rows


def _time(detector: Detector[Any], images: torch.Tensor, maps: bool) -> float:
    began = time.perf_counter()
    detector.score(images, maps=maps)
    return time.perf_counter() - began
