"""Which engine runs the frozen network of a training, and how engines would score for its model."""

from __future__ import annotations

from typing import Any

from ganad.detectors.base import Detector
from ganad.engines.backbone import frozen_network
from ganad.engines.known import candidates, check
from ganad.engines.trial import choose, keep_trials, try_backbone, try_engines
from ganad.model import Model
from ganad.storage import files as storage
from ganad.storage.records import Record, read_record, write_record
from pipelines.cluster.connection import Resources
from pipelines.console.progress import say
from pipelines.passes.engines import AUTO, EAGER, MAX_IMAGES, agreement, check_engine, gain
from pipelines.train.first import NUM_FIRST, first_images
from pipelines.train.job import TrainingJob


class EngineRecord(Record):
    """MODEL/training/engine.json: a training that goes on keeps its engine."""

    engine: str
    trials: list[dict[str, Any]]


def choose_backbone(
    job: TrainingJob, detector: Detector[Any], typed: str, resources: Resources
) -> TrainingJob:
    """The job with the engine of its frozen network, found out once by a trial on its first images.

    Raises ConfigError for an engine that does not exist, or that this machine does not have.
    """
    check_engine(typed, resources)
    if typed == EAGER or resources.gpus:
        return job
    if typed != AUTO:
        check(typed)
    place = job.place("engine.json")
    if storage.exists(place):
        record = read_record(place, EngineRecord, "give a fresh --out")
    elif frozen_network(detector) is None:
        record = EngineRecord(engine=EAGER, trials=[])
    else:
        record = _tried(job, detector, typed, resources)
        write_record(place, record)
    facts = {**job.facts, "backbone_engine": record.engine, "backbone_trials": record.trials}
    return job.with_engines(record.engine, typed, facts if record.trials else job.facts)


def _tried(
    job: TrainingJob, detector: Detector[Any], typed: str, resources: Resources
) -> EngineRecord:
    pixels = first_images(job, job.table().take(job.positions("train")[:NUM_FIRST]))
    if not len(pixels):
        return EngineRecord(engine=EAGER, trials=[])
    images = detector.patches(pixels)[:NUM_FIRST]
    total = job.num_rows / resources.num_workers if typed == AUTO else float("inf")
    trials = try_backbone(detector, images, candidates(typed), total)
    facts = [one.facts() for one in trials]
    engine = choose(facts, typed)
    if engine != EAGER:
        say(f"the frozen network is run by {engine}{gain(engine, facts)}")
    elif typed != AUTO:
        say(f"the frozen network is run eager: {_reason(facts[-1])}")
    return EngineRecord(engine=engine, trials=facts)


def _reason(trial: dict[str, Any]) -> str:
    if "refused" in trial:
        return str(trial["refused"])
    return f"{agreement(trial['agreement'])}; --set precision=float32 makes them comparable"


def scoring_trials(job: TrainingJob, model: Model) -> dict[str, Any]:
    """How the engine that was typed for the training scores for its model, as facts to record:
    tried on the images that calibrate it. A scoring job on this machine need not try again."""
    if job.typed_engine == EAGER or model.calibration is None:
        return {}
    names, positions = candidates(job.typed_engine), job.positions("calibration")[:MAX_IMAGES]
    images = first_images(job, job.table().take(positions))
    if not names or not len(images):
        return {}
    ids = [str(number) for number in range(len(images))]
    detector = model.detector.eval()
    trials = try_engines(detector, model.calibration, images, ids, names)
    facts = [one.facts() for one in trials]
    keep_trials(model.id, names, facts)
    return {"scoring_trials": facts}
