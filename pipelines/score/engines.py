"""Which engine scores for each model of a job: tried on the first images of the archive."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ganad.images.decode import Preprocessing
from pipelines.cluster.connection import Resources
from pipelines.console.progress import say
from pipelines.passes.engines import AUTO, EAGER, MAX_IMAGES, agreement, gain
from pipelines.passes.stream import stream
from pipelines.passes.units import Unit, rows_at_once
from pipelines.passes.worker import DecodedUnit, ModelWorker

FEW_IMAGES = 1_000
"""Smaller archives are scored eager under auto: a trial takes seconds to start."""


@dataclass(frozen=True)
class EngineChoice:
    """The engine that scores for a model, and how the engines of this machine did."""

    engine: str = EAGER
    trials: tuple[dict[str, Any], ...] = ()


class EngineTester(ModelWorker):
    """Scores the images of a unit with the eager pass and with engines, and compares."""

    def setup(self, models: Sequence[str], num_threads: int, typed: str, total: float) -> None:
        """total: images that a worker is to score."""
        self.load_models(models, num_threads)
        self.typed, self.total = typed, total

    def work(self, images: DecodedUnit) -> dict[str, Any]:
        """The trials of each engine, as JSON."""
        from ganad.engines.known import candidates, check
        from ganad.engines.trial import choose, keep_trials, kept_trials

        if self.typed != AUTO:
            check(self.typed)
        model, names = self.model, candidates(self.typed)
        trials = kept_trials(model.id, names)
        if trials is None:
            trials = self._tried(images, names)
            if len(trials) > 1:
                keep_trials(model.id, names, trials)
        engine = choose(trials, self.typed) if trials else EAGER
        return {"report": json.dumps({"engine": engine, "trials": trials})}

    def _tried(self, images: DecodedUnit, names: Sequence[str]) -> list[dict[str, Any]]:
        """The facts of each engine's trial; none without any image that can be read."""
        import torch

        from ganad.engines.trial import try_engines

        if not images.good:
            return []
        ids = [images.rows[i]["image_id"] for i in images.good[:MAX_IMAGES]]
        batch = torch.from_numpy(images.images[:MAX_IMAGES])
        total = self.total if self.typed == AUTO else math.inf
        detector, calibration = self.model.detector, self.model.calibration
        return [one.facts() for one in try_engines(detector, calibration, batch, ids, names, total)]


def choose(
    model: str,
    name: str,
    preprocessing: Preprocessing,
    typed: str,
    unit: Unit,
    resources: Resources,
    num_images: float = math.inf,
) -> EngineChoice:
    """Try engines for the model in the folder `model` on the images of a unit, unless they were
    tried for it on this machine before.

    typed: eager, the name of an engine, or auto for the quickest. num_images: to be scored; auto
    tries none where the eager pass would take less than a minute. One that does not agree with
    the eager pass is not taken, and the user is told.
    """
    if typed == EAGER or resources.gpus or (typed == AUTO and num_images < FEW_IMAGES):
        return EngineChoice()
    arguments = {
        "models": [model],
        "num_threads": resources.threads,
        "typed": typed,
        "total": num_images / resources.num_workers,
    }
    num = min(unit.num, MAX_IMAGES, rows_at_once([preprocessing]))
    first = replace(unit, num=num)
    (result,) = stream([first], EngineTester, arguments, [preprocessing], resources)
    report = json.loads(result["report"])
    choice = EngineChoice(report["engine"], tuple(report["trials"]))
    if typed not in (AUTO, choice.engine):
        say(f"{name} is scored eager: {_reason(choice, typed)}")
    elif choice.engine != EAGER:
        say(f"{name} is scored by {choice.engine}{gain(choice.engine, choice.trials)}")
    return choice


def _reason(choice: EngineChoice, typed: str) -> str:
    for trial in choice.trials:
        if trial["engine"] == typed:
            if "refused" in trial:
                return str(trial["refused"])
            return (
                f"with {typed}, {agreement(trial['agreement'])}; train with --set "
                f"precision=float32 for scores that engines agree on"
            )
    return "none of the first images can be read"
