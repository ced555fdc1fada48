"""Tries the engines of this machine on a model, and takes the quickest whose scores agree."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ganad.calibration import Calibration
from ganad.detectors.base import Detector
from ganad.engines.compiled import attach
from ganad.engines.gate import Agreement, agreement
from ganad.errors import EngineError

PASSES = 3
"""Forward passes that are timed; the quickest counts, because others may disturb the machine."""


@dataclass(frozen=True)
class Trial:
    """How an engine did: images per second of the forward pass, and how its scores agree."""

    engine: str
    images_per_s: float | None
    agreement: Agreement | None
    """None for eager, which is what the others are compared with."""
    refused: str | None = None
    """Why the engine cannot take this detector."""

    @property
    def passed(self) -> bool:
        """True if the engine may score for the model."""
        return self.refused is None and (self.agreement is None or self.agreement.passed)

    def facts(self) -> dict[str, Any]:
        """For model.json and run.json."""
        rate = None if self.images_per_s is None else round(self.images_per_s, 2)
        told: dict[str, Any] = {"engine": self.engine, "images_per_s": rate, "passed": self.passed}
        if self.agreement is not None:
            told |= {"agreement": self.agreement.facts()}
        return told if self.refused is None else told | {"refused": self.refused}


def try_engines(
    detector: Detector[Any],
    calibration: Calibration | None,
    images: Tensor,
    ids: Sequence[str],
    names: Sequence[str],
) -> list[Trial]:
    """Score images, uint8 (n, c, s, s), with the eager pass and with each engine of the names.

    The detector keeps the engine it had. Compiles what was not compiled on this machine before.
    """
    before = detector.engine
    try:
        detector.engine = None
        eager = detector.score(images, ids).score
        trials = [Trial("eager", _rate(detector, images, ids), None)]
        for name in names:
            if name == "eager":
                continue
            try:
                attach(detector, name)
            except EngineError as error:
                trials.append(Trial(name, None, None, str(error)))
                continue
            scores = detector.score(images, ids).score
            agrees = agreement(np.asarray(eager), np.asarray(scores), calibration)
            trials.append(Trial(name, _rate(detector, images, ids), agrees))
        return trials
    finally:
        detector.engine = before


def quickest(trials: Sequence[Trial]) -> Trial:
    """The quickest engine that passed; eager always has."""
    return max((one for one in trials if one.passed), key=lambda one: one.images_per_s or 0.0)


def _rate(detector: Detector[Any], images: Tensor, ids: Sequence[str]) -> float:
    batch = images[: detector.scoring_batch]
    names = ids[: detector.scoring_batch]
    seconds = []
    for _ in range(PASSES):
        began = time.perf_counter()
        detector.score(batch, names)
        seconds.append(time.perf_counter() - began)
    return len(batch) / min(seconds)
