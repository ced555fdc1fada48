"""Lets an engine run a detector's frozen network: for fits, and for maps that a training keeps.

A model that was fitted so is another one only by rounding, and is calibrated and scores by the
eager pass, or by an engine that ganad.engines.gate lets score for it.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from ganad.batch.fixed import fixed
from ganad.detectors.base import Detector
from ganad.engines.compiled import check_device
from ganad.engines.store import Source, compiled
from ganad.features.backbone import FeatureExtractor
from ganad.features.maps import FeatureMaps

BATCH = 16
"""Images per pass. Fixed, because engines compile for one size."""
Frozen = FeatureExtractor | FeatureMaps


def frozen_network(detector: Detector[Any]) -> Frozen | None:
    """The frozen network that a detector sees images by, if it has one."""
    parts = (one for one in detector.children() if isinstance(one, FeatureExtractor | FeatureMaps))
    return next(parts, None)


def attach_backbone(detector: Detector[Any], name: str) -> None:
    """Let an engine run the detector's frozen network from now on; eager takes it away again.

    Compiles on the first use on this machine, which takes 10 to 60 seconds. Raises ConfigError if
    the engine is not there, and EngineError if it cannot take the network.
    """
    check_device(detector, name)
    frozen = frozen_network(detector)
    if frozen is None:
        return
    frozen.engine = None
    if name == "eager":
        return
    shape = (BATCH, detector.config.channels, *[detector.config.input_size] * 2)
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        _, forward = compiled(_source(frozen, shape), name)

    def run(images: Tensor) -> list[Tensor]:
        parts = []
        for some in images.split(BATCH):
            batch, num = fixed(some, BATCH)
            parts.append([one[:num] for one in forward(batch)])
        return [torch.cat(outputs) for outputs in zip(*parts, strict=True)]

    frozen.engine = run


class _Outputs(nn.Module):
    """A frozen network whose outputs are a tuple."""

    def __init__(self, frozen: Frozen) -> None:
        super().__init__()
        self.frozen = frozen

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        found = self.frozen(images)
        return (found,) if isinstance(found, Tensor) else tuple(found.values())


def _source(frozen: Frozen, shape: tuple[int, ...]) -> Source:
    if isinstance(frozen, FeatureMaps):
        extractor, kind, grid = frozen.extractor, "maps", [frozen.grid]
    else:
        extractor, kind, grid = frozen, "pooled", []
    identity = [extractor.name, list(extractor.dimensions), shape, *grid]

    def make() -> tuple[nn.Module, Tensor, dict[str, Any]]:
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(shape, generator=generator) * 2 - 1
        frozen(images[:1])  # batch-norms are folded before a compiler looks
        return _Outputs(frozen).eval(), images, {}

    label = re.sub(r"[^\w.]+", "-", f"{extractor.name}-{kind}")
    return Source(label, identity, extractor, make)
