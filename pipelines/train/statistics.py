"""Fit a detector by one pass over the archive: a Ray Data map to statistics, then a merge."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from ganad.archive.parts import Part
from ganad.detectors.base import Extendable, StatisticsDetector
from ganad.errors import TrainingError
from ganad.images.load import load_images
from ganad.model import Model
from ganad.storage import files as storage
from ganad.training.fit import NO_CALIBRATION
from ganad.training.held_out import HeldOut
from pipelines.cluster.connection import Resources
from pipelines.console.progress import Meter, say
from pipelines.passes.stream import stream
from pipelines.passes.units import Unit, cut, rows_per_unit
from pipelines.passes.worker import DecodedUnit, ModelWorker
from pipelines.train.addition import Start
from pipelines.train.job import TrainingJob

NUM_FIRST = 32
"""Images that statistics are begun with, for their shift and their shapes."""
CUT_FOR = 16
"""Workers that units are cut for, however many there are."""


class Observer(ModelWorker):
    """Holds an unfitted detector; turns a unit of images into their statistics."""

    def setup(self, models: Sequence[str], num_threads: int, begun: Any) -> None:
        self.load_models(models, num_threads)
        self.begun = begun

    def work(self, images: DecodedUnit) -> dict[str, Any]:
        detector = self.model.detector
        assert isinstance(detector, StatisticsDetector)
        statistics = self.begun
        if images.good:
            statistics = detector.observe(self.begun, torch.from_numpy(images.images))
        return {
            "errors": pickle.dumps(list(images.errors.values())),
            "statistics": pickle.dumps(statistics, protocol=5),
        }


class Calibrator(ModelWorker):
    """Holds a fitted detector; scores a unit of held-out images."""

    def setup(self, models: Sequence[str], num_threads: int) -> None:
        self.load_models(models, num_threads)

    def work(self, images: DecodedUnit) -> dict[str, Any]:
        held_out = HeldOut()
        if images.good:
            ids = [str(images.rows[i]["image_id"]) for i in images.good]
            pixels = torch.from_numpy(images.images)
            held_out = HeldOut.of(self.model.detector, pixels, ids)
        return {
            "errors": pickle.dumps(list(images.errors.values())),
            "held_out": pickle.dumps(held_out, protocol=5),
        }


def fit_statistics(
    job: TrainingJob, start: Start, detector: StatisticsDetector[Any, Any], resources: Resources
) -> None:
    """Fit the detector to the rows of the job and to what the start has, calibrate it, save it."""
    rows, errors = job.table(), list[str]()
    statistics = _observe(job, rows, start, detector, resources, errors)
    fitted = detector.finish(statistics)
    held_out = _score_held_out(job, rows, detector, resources, errors)
    if isinstance(detector, Extendable):
        held_out = HeldOut.merge([start.held_out.rescored(detector), held_out])
    if not held_out.ids:
        say(NO_CALIBRATION)
    if errors:
        say(f"{len(errors)} images cannot be read and are left out; the first: {errors[0]}")
    facts = {**job.facts, "num_unreadable": len(errors), "history": [fitted]}
    model = Model(detector.eval(), held_out.calibration(), facts)
    model.save(job.model, held_out.files())


def _observe(
    job: TrainingJob,
    rows: pa.Table,
    start: Start,
    detector: StatisticsDetector[Any, Any],
    resources: Resources,
    errors: list[str],
) -> Any:
    """The statistics of the training rows and of the start."""
    units = _units(job, rows, "train")
    parts = list(start.statistics)
    if not units:  # all of a few added images may be held out
        return parts[0]
    begun = _begin(detector, rows, job)
    unfitted = Model(detector, None).save(job.place("uncalibrated", "unfitted"))
    arguments = {"models": [unfitted], "begun": begun, "num_threads": resources.threads}
    for row in _passed("fitting", job, units, Observer, arguments, resources):
        errors += pickle.loads(row["errors"])
        parts.append(pickle.loads(row["statistics"]))
        # One after another: all at once would need the memory of all.
        parts = [parts[0] if len(parts) == 1 else detector.merge(parts)]
    return parts[0]


def _score_held_out(
    job: TrainingJob,
    rows: pa.Table,
    detector: StatisticsDetector[Any, Any],
    resources: Resources,
    errors: list[str],
) -> HeldOut:
    units = _units(job, rows, "calibration")
    if not units:
        return HeldOut()
    fitted = Model(detector.eval(), None).save(job.place("uncalibrated", "fitted"))
    arguments = {"models": [fitted], "num_threads": resources.threads}
    parts = []
    for row in _passed("calibrating", job, units, Calibrator, arguments, resources):
        errors += pickle.loads(row["errors"])
        parts.append(pickle.loads(row["held_out"]))
    return HeldOut.merge(parts)


def _passed(
    title: str,
    job: TrainingJob,
    units: Sequence[Unit],
    worker: type[ModelWorker],
    arguments: dict[str, Any],
    resources: Resources,
) -> Iterator[dict[str, Any]]:
    """The results of a pass over the units, in their order, with its progress shown."""
    with Meter(title, sum(unit.num for unit in units), "images") as meter:
        for row in in_order(stream(units, worker, arguments, [job.preprocessing], resources)):
            yield row
            meter.update(meter.done + int(row["num"]))


def in_order(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows by their number from 0, whatever order they come in: sums of floats depend on it in
    the last bits, and with them a model's digest."""
    waiting: dict[int, dict[str, Any]] = {}
    following = 0
    for row in rows:
        waiting[int(row["number"])] = row
        while following in waiting:
            yield waiting.pop(following)
            following += 1


def _begin(detector: StatisticsDetector[Any, Any], rows: pa.Table, job: TrainingJob) -> Any:
    first = rows.filter(pc.equal(rows["part"], "train")).slice(0, NUM_FIRST).to_pylist()
    decoded = [one[0].image for one in load_images(first, [job.preprocessing])]
    images = [image for image in decoded if image is not None]
    if not images:
        raise TrainingError(
            f"{job.facts['source']}: none of the first {len(first)} images can be read: "
            f"give images that decode"
        )
    return detector.begin(torch.from_numpy(np.stack(images)))


def _units(job: TrainingJob, rows: pa.Table, part: str) -> list[Unit]:
    """The rows of one part as a file of their own, cut into units; the cut does not depend on the
    number of workers, and neither does the model."""
    chosen = rows.filter(pc.equal(rows["part"], part))
    uri = job.place("uncalibrated", f"{part}.parquet")
    storage.write_table(uri, chosen)
    num = rows_per_unit([job.preprocessing], len(chosen), CUT_FOR)
    return cut([Part(uri, len(chosen))], num)
