"""Which engine scores for each model of a job: tried on the first images of the archive."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ganad.errors import ConfigError
from ganad.images.decode import Preprocessing
from pipelines.cluster.connection import Resources
from pipelines.console.progress import say
from pipelines.passes.stream import stream
from pipelines.passes.units import Unit, rows_at_once
from pipelines.passes.worker import DecodedUnit, ModelWorker

EAGER, AUTO = "eager", "auto"
TYPED = (AUTO, EAGER, "inductor", "openvino")
"""What --engine takes."""
MAX_IMAGES = 256
"""Images of the archive on which engines are compared."""


@dataclass(frozen=True)
class EngineChoice:
    """The engine that scores for a model, and how the engines of this machine did."""

    engine: str = EAGER
    trials: tuple[dict[str, Any], ...] = ()


class EngineTester(ModelWorker):
    """Scores the images of a unit with the eager pass and with engines, and compares."""

    def setup(self, models: Sequence[str], num_threads: int, typed: str) -> None:
        self.load_models(models, num_threads)
        self.typed = typed

    def work(self, images: DecodedUnit) -> dict[str, Any]:
        """The trials of each engine, as JSON."""
        import torch

        from ganad.engines.compiled import available, check
        from ganad.engines.trial import quickest, try_engines

        if self.typed != AUTO:
            check(self.typed)
        if not images.good:
            return {"report": json.dumps({"engine": EAGER, "trials": []})}
        ids = [images.rows[i]["image_id"] for i in images.good[:MAX_IMAGES]]
        batch = torch.from_numpy(images.images[:MAX_IMAGES])
        # The first that is there: TorchInductor takes minutes to compile what OpenVINO takes
        # seconds for, and is as quick.
        names = available()[1:2] if self.typed == AUTO else [self.typed]
        model = self.model
        trials = try_engines(model.detector, model.calibration, batch, ids, names)
        chosen = quickest(trials) if self.typed == AUTO else trials[-1]
        engine = chosen.engine if chosen.passed else EAGER
        facts = {"engine": engine, "trials": [one.facts() for one in trials]}
        return {"report": json.dumps(facts)}


def check_engine(typed: str, resources: Resources) -> None:
    """Raises ConfigError for an engine that does not exist, or that GPUs do not have."""
    if typed not in TYPED:
        raise ConfigError(f"--engine {typed}: use one of {', '.join(TYPED)}")
    if resources.gpus and typed not in (AUTO, EAGER):
        raise ConfigError(f"--engine {typed} runs on processors: leave it out, or add --no-gpu")


def choose(
    model: str,
    name: str,
    preprocessing: Preprocessing,
    typed: str,
    unit: Unit,
    resources: Resources,
) -> EngineChoice:
    """Try engines for the model in the folder `model` on the images of a unit.

    typed: eager, the name of an engine, or auto for the quickest. One that does not agree with the
    eager pass is not taken, and the user is told.
    """
    if typed == EAGER or resources.gpus:
        return EngineChoice()
    arguments = {"models": [model], "num_threads": resources.threads, "typed": typed}
    num = min(unit.num, MAX_IMAGES, rows_at_once([preprocessing]))
    first = replace(unit, num=num)
    (result,) = stream([first], EngineTester, arguments, [preprocessing], resources)
    report = json.loads(result["report"])
    choice = EngineChoice(report["engine"], tuple(report["trials"]))
    if typed not in (AUTO, choice.engine):
        say(f"{name} is scored eager: {_reason(choice, typed)}")
    elif choice.engine != EAGER:
        say(f"{name} is scored by {choice.engine}{_gain(choice)}")
    return choice


def _reason(choice: EngineChoice, typed: str) -> str:
    for trial in choice.trials:
        if trial["engine"] == typed:
            if "refused" in trial:
                return str(trial["refused"])
            agreement = trial["agreement"]
            return (
                f"with {typed} p-values of {agreement['n']} images differ by up to "
                f"{agreement['p_difference']:.2g} (Spearman {agreement['spearman']:.5f}); train "
                f"with --set precision=float32 for scores that engines agree on"
            )
    return "none of the first images can be read"


def _gain(choice: EngineChoice) -> str:
    rates = {trial["engine"]: trial["images_per_s"] for trial in choice.trials}
    eager, engine = rates.get(EAGER), rates.get(choice.engine)
    return f", {engine / eager:.1f} times as fast as eager" if eager and engine else ""
