"""Tries the engines of this machine on a model, and takes the quickest whose scores agree."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from ganad.calibration import Calibration
from ganad.detectors.base import Detector
from ganad.engines.backbone import BATCH, attach_backbone, frozen_network
from ganad.engines.compiled import attach
from ganad.engines.gate import Agreement, FeatureAgreement, agreement, feature_agreement
from ganad.engines.known import module
from ganad.engines.store import cache_folder, machine
from ganad.errors import EngineError

Result = TypeVar("Result")
PASSES = 3
"""Forward passes that are timed; the quickest counts, because others may disturb the machine."""
GAIN = 1.1
"""How many times as fast as eager an engine must be for auto to take it: measurements vary."""


@dataclass(frozen=True)
class Trial:
    """How an engine did: images per second of the forward pass, and how its results agree."""

    engine: str
    images_per_s: float | None
    agreement: Agreement | FeatureAgreement | None
    """None for eager, which is what the others are compared with."""
    refused: str | None = None
    """Why the engine cannot take this detector."""

    @property
    def passed(self) -> bool:
        """True if the engine may take the place of eager."""
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
    total: float = float("inf"),
) -> list[Trial]:
    """Score images, uint8 (n, c, h, w), with the eager pass and with each engine of the names.

    total: images that this process is to score; an engine is not tried if the eager pass scores
    them in less time than is worth a compilation. The detector keeps the engine it had. Compiles
    what was not compiled on this machine before.
    """
    batch, batch_ids = images[: detector.scoring_batch], ids[: detector.scoring_batch]
    before = detector.engine
    try:
        return _tried(
            names,
            total,
            lambda name: attach(detector, name),
            (len(batch), lambda: detector.score(batch, batch_ids)),
            lambda: detector.score(images, ids).score,
            lambda eager, scores: agreement(eager, scores, calibration),
        )
    finally:
        detector.engine = before


@torch.no_grad()
def try_backbone(
    detector: Detector[Any],
    images: Tensor,
    names: Sequence[str],
    total: float = float("inf"),
) -> list[Trial]:
    """As try_engines, for the frozen network alone: uint8 images of the size that it sees, some 32
    of them. The network runs eager afterwards."""
    network = frozen_network(detector)
    assert network is not None

    def outputs() -> list[Tensor]:
        with detector.autocast():
            found = network(prepared)
        return [found] if isinstance(found, Tensor) else list(found.values())

    prepared = detector.prepare(images[: len(images) // BATCH * BATCH or None])
    try:
        return _tried(
            names,
            total,
            lambda name: attach_backbone(detector, name),
            (len(prepared), outputs),
            outputs,
            feature_agreement,
        )
    finally:
        attach_backbone(detector, "eager")


def _tried(
    names: Sequence[str],
    total: float,
    attached: Callable[[str], None],
    timed: tuple[int, Callable[[], Any]],
    results: Callable[[], Result],
    compare: Callable[[Result, Result], Agreement | FeatureAgreement],
) -> list[Trial]:
    """timed: a number of images, and what is timed on them. results: to be compared."""
    attached("eager")
    trials = [Trial("eager", _rate(*timed), None)]
    names = _worth(names, trials[0], total)
    if not names:
        return trials
    eager = results()
    for name in names:
        try:
            attached(name)
        except EngineError as error:
            trials.append(Trial(name, None, None, str(error)))
            continue
        agrees = compare(eager, results())
        trials.append(Trial(name, _rate(*timed), agrees))
    return trials


def choose(trials: Sequence[Mapping[str, Any]], typed: str) -> str:
    """The engine to take for what was typed, by the facts of its trials: the quickest that passed
    for auto, the named one if it passed; else eager."""
    passed = {one["engine"]: one["images_per_s"] or 0.0 for one in trials if one["passed"]}
    if typed == "auto":
        passed["eager"] *= GAIN
        return max(passed, key=lambda name: passed[name])
    return typed if typed in passed else "eager"


def kept_trials(model: str, names: Sequence[str]) -> list[dict[str, Any]] | None:
    """What keep_trials was given for a model on this machine with these engines, if anything."""
    try:
        found: list[dict[str, Any]] = json.loads(_kept(model, names).read_text())
    except (OSError, ValueError):
        return None
    return found


def keep_trials(model: str, names: Sequence[str], trials: Sequence[Mapping[str, Any]]) -> None:
    """Keep the facts of trials of engines for a model, beside the compiled networks."""
    file = _kept(model, names)
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_suffix(f".{time.time_ns()}")
    fresh.write_text(json.dumps(list(trials)))
    fresh.replace(file)


def _kept(model: str, names: Sequence[str]) -> Path:
    versions = [module(name).version() for name in names if name != "eager"]
    text = json.dumps([list(names), versions, *machine()])
    key = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    return cache_folder() / "trials" / f"{model}-{key}.json"


def _worth(names: Sequence[str], eager: Trial, total: float) -> list[str]:
    """The engines whose compilation is worth while for so many images."""
    assert eager.images_per_s is not None
    seconds = total / eager.images_per_s
    return [name for name in names if name != "eager" and seconds >= module(name).WORTH_S]


def _rate(num: int, run: Callable[[], Any]) -> float:
    seconds = []
    for _ in range(PASSES):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return num / min(seconds)
