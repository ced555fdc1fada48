"""Training steps of ganad's loop, beside a loop written by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ganad.detectors import configure, create
from ganad.detectors.config import DetectorConfig
from ganad.detectors.gan.ganomaly import Ganomaly
from ganad.detectors.gradient import GradientDetector
from ganad.images.shards import Shards
from ganad.training.trainer import Trainer
from pipelines.benchmark.gpu.bench import Bench, Line, Rate, pictures, word
from pipelines.benchmark.gpu.busy import busy_share
from pipelines.benchmark.gpu.plain_loop import plain_loop

FOREVER = 10_000
"""Epochs: the loop is stopped, it does not end."""
PICTURES = 512


@dataclass(frozen=True)
class Steps:
    """Of a detector that is trained by gradient; a method of several stages is in its first."""

    table: ClassVar[str] = "training"
    detector: str
    values: Mapping[str, Any]

    def lines(self, name: str, bench: Bench) -> Iterator[Line]:
        config = configure(self.detector, {**self.values, "epochs": FOREVER})
        pixels = pictures(PICTURES, config.image_size, config.channels)
        facts = {
            "detector": self.detector,
            "image_size": config.image_size,
            "batch_size": config.batch_size,
        }

        def ganad(found: dict[str, Any]) -> Rate:
            return self._ganad(bench, config, pixels, found)

        def plain(found: dict[str, Any]) -> Rate:
            networks = create(self.detector, config)
            assert isinstance(networks, Ganomaly)
            per_call = len(pixels) // config.batch_size if bench.on_gpu else 1
            make = plain_loop(networks, pixels, config.batch_size, bench.device)
            rate = bench.measure(lambda: make(per_call), per_call * config.batch_size)
            found["busy"], found["busy_by"] = busy_share(bench, lambda: make(per_call))
            return rate

        ways: dict[str, Callable[[dict[str, Any]], Rate]] = {"ganad": ganad}
        if self.detector == Ganomaly.name:
            ways["plain float32 loop"] = plain
        for way, measure in ways.items():
            line = bench.line(name, way, measure)
            line.facts |= facts
            yield line

    def _ganad(
        self, bench: Bench, config: DetectorConfig, pixels: np.ndarray, facts: dict[str, Any]
    ) -> Rate:
        detector = create(self.detector, config)
        assert isinstance(detector, GradientDetector)
        trainer = Trainer(detector, Shards([pixels]), device=bench.device)
        facts["precision"] = word(detector.data_type)
        steps = trainer.run()
        with closing(steps):  # type: ignore[type-var]
            rate = bench.measure(lambda: next(steps), trainer.batch_size)
            facts["busy"], facts["busy_by"] = busy_share(bench, lambda: next(steps))
        return rate
