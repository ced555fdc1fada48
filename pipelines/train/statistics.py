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
from ganad.calibration import Calibration
from ganad.detectors.base import StatisticsDetector
from ganad.detectors.statistics.gaussian import Gaussian
from ganad.errors import TrainingError
from ganad.images.load import load_images
from ganad.model import Model
from ganad.storage import files as storage
from pipelines.cluster.connection import Resources
from pipelines.console.progress import Meter, say
from pipelines.passes.stream import stream
from pipelines.passes.units import Unit, cut, rows_per_unit
from pipelines.passes.worker import DecodedUnit, ModelWorker
from pipelines.score.scorer import Scorer, write_part
from pipelines.train.addition import Base
from pipelines.train.held_out import Extractor, HeldOut
from pipelines.train.job import TrainingJob

FIRST = 32
"""Images that the statistics' shift is taken from."""
CUT_FOR = 16
"""Workers that units are cut for, however many there are."""


class Observer(ModelWorker):
    """Holds an unfitted detector; turns a unit of images into their statistics."""

    def setup(self, models: Sequence[str], num_threads: int, start: Any) -> None:
        self.load_models(models, num_threads)
        self.start = start

    def work(self, images: DecodedUnit) -> dict[str, Any]:
        detector = self.model.detector
        assert isinstance(detector, StatisticsDetector)
        statistics = self.start
        if images.good:
            statistics = detector.observe(self.start, torch.from_numpy(images.images))
        return {
            "errors": pickle.dumps(list(images.errors.values())),
            "statistics": pickle.dumps(statistics, protocol=5),
        }


def fit_statistics(
    job: TrainingJob,
    detector: StatisticsDetector[Any, Any],
    resources: Resources,
    base: Base | None = None,
) -> None:
    """Fit, calibrate and save the detector of the job: an unfitted one, or that of base, to which
    the rows of the job are added."""
    rows = job.table()
    fit, errors = _fit(job, rows, detector, resources, base)
    if errors:
        say(f"{len(errors)} training images cannot be read and are left out; first: {errors[0]}")
    facts = {**job.facts, "num_unreadable": len(errors), "history": [fit]}
    fitted = Model(detector.eval(), None).save(job.place("uncalibrated", "fitted"))
    if isinstance(detector, Gaussian):
        calibration = _calibrate_gaussian(job, rows, detector, fitted, resources, base)
    else:
        calibration = _calibrate(job, rows, fitted, resources)
    Model(detector, calibration, facts).save(job.model)


def _fit(
    job: TrainingJob,
    rows: pa.Table,
    detector: StatisticsDetector[Any, Any],
    resources: Resources,
    base: Base | None,
) -> tuple[dict[str, Any], list[str]]:
    """The detector's facts, and why images could not be read."""
    train = _units(job, rows, "train")
    errors: list[str] = []
    merged = None if base is None else base.detector.statistics
    if not train and base is not None:  # of a few new images all may be held out
        return detector.finish(merged), errors
    start = _begin(detector, rows, job)
    unfitted = Model(detector, None).save(job.place("uncalibrated", "unfitted"))
    arguments = {"models": [unfitted], "start": start, "num_threads": resources.threads}
    with Meter("fitting", sum(unit.num for unit in train), "images") as meter:
        rows_of_units = stream(train, Observer, arguments, [job.preprocessing], resources)
        for row in in_order(rows_of_units):
            part = pickle.loads(row["statistics"])
            merged = part if merged is None else detector.merge([merged, part])
            errors += pickle.loads(row["errors"])
            meter.update(meter.done + int(row["num"]))
    return detector.finish(merged), errors


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
    first = rows.filter(pc.equal(rows["part"], "train")).slice(0, FIRST).to_pylist()
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
    number of workers, nor does the model then."""
    chosen = rows.filter(pc.equal(rows["part"], part))
    uri = job.place("uncalibrated", f"{part}.parquet")
    write_part(uri, chosen)
    num = rows_per_unit([job.preprocessing], len(chosen), CUT_FOR)
    return cut([Part(uri, len(chosen))], num)


def _calibrate_gaussian(
    job: TrainingJob,
    rows: pa.Table,
    detector: Gaussian,
    fitted: str,
    resources: Resources,
    base: Base | None,
) -> Calibration | None:
    """From the features of the held-out rows, and of those that base brings along; they are kept,
    so that images can be added later."""
    parts = [] if base is None or base.held_out is None else [base.held_out]
    units = _units(job, rows, "calibration")
    arguments = {"models": [fitted], "num_threads": resources.threads}
    with Meter("calibrating", sum(unit.num for unit in units), "images") as meter:
        found = stream(units, Extractor, arguments, [job.preprocessing], resources) if units else ()
        for row in in_order(found):
            parts.append(pickle.loads(row["held_out"]))
            meter.update(meter.done + int(row["num"]))
    if not any(part.ids for part in parts):
        say("no images are held out for calibration: scores will have no p-values")
        return None
    held_out = HeldOut.merge(parts)
    held_out.save(job.model)
    return held_out.calibrate(detector)


def _calibrate(
    job: TrainingJob, rows: pa.Table, model: str, resources: Resources
) -> Calibration | None:
    """Score the held-out rows as any archive is scored, into a table that only this reads."""
    units = _units(job, rows, "calibration")
    if not units:
        say("no images are held out for calibration: scores will have no p-values")
        return None
    table = job.place("uncalibrated", "table")
    arguments = {"models": [model], "table": table, "num_threads": resources.threads}
    with Meter("calibrating", sum(unit.num for unit in units), "images") as meter:
        for row in stream(units, Scorer, arguments, [job.preprocessing], resources):
            meter.update(meter.done + int(row["num"]))
    folder = storage.join(table, storage.list_names(table)[0])
    scored = pa.concat_tables(
        storage.read_table(storage.join(folder, name)) for name in storage.list_names(folder)
    ).filter(pc.field("error").is_null())
    return Calibration(scored["score"].to_numpy(), tuple(scored["image_id"].to_pylist()))
