"""Lets an engine run a detector's forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ganad.detectors.base import BatchScores, Detector
from ganad.engines.forward import Forward, Layout, example, in_float32, layout_of
from ganad.engines.known import check
from ganad.engines.store import Run, Source, compiled
from ganad.errors import ConfigError


def attach(detector: Detector[Any], name: str, maps: bool = False) -> None:
    """Let an engine run the detector's forward pass from now on; eager takes it away again.

    The engine gives scores and terms; with maps, a second compiled pass gives the maps as well.
    Without, images whose maps are asked for take the eager pass. Compiles on the first use on this
    machine, which takes 10 to 60 seconds. Raises ConfigError if the engine is not there, and
    EngineError if it cannot take this detector.
    """
    check_device(detector, name)
    detector.engine = None
    if name == "eager":
        return
    passes = {one: _ready(detector, name, one) for one in ((False, True) if maps else (False,))}

    def run(images: Tensor, ids: Sequence[str], maps: bool) -> BatchScores:
        if maps not in passes:
            return detector.score_batch(images, ids, maps)
        layout, forward = passes[maps]
        return layout.scores(forward(images))

    detector.engine = run


def check_device(detector: Detector[Any], name: str) -> None:
    """Raises ConfigError unless the engine is there and can run where the detector's networks
    are."""
    check(name)
    if name != "eager" and detector.device.type != "cpu":
        raise ConfigError(f"--engine {name} runs on processors only: use eager, or --no-gpu")


def _ready(detector: Detector[Any], name: str, maps: bool) -> tuple[Layout, Run]:
    config = detector.config.model_dump(mode="json")

    def make() -> tuple[nn.Module, Tensor, dict[str, Any]]:
        layout = layout_of(detector, maps)
        facts = {"terms": list(layout.terms), "maps": layout.maps}
        return Forward(detector, maps).eval(), example(detector), facts

    identity = [config, maps, detector.scoring_batch]
    with in_float32(detector), detector.scoring():
        known, run = compiled(Source(detector.name, identity, detector, make), name)
    return Layout(tuple(known["terms"]), known["maps"]), run
