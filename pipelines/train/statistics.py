"""Fit a detector by one pass over the archive: a Ray Data map to statistics, then a merge."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch

from ganad.archive.parts import Part
from ganad.detectors.base import Extendable, StatisticsDetector
from ganad.engines.backbone import attach_backbone
from ganad.errors import TrainingError
from ganad.model import Model
from ganad.storage import files as storage
from ganad.training.crossed import SubsetFits
from ganad.training.fit import NO_CALIBRATION
from ganad.training.held_out import HeldOut
from pipelines.cluster.connection import Resources
from pipelines.console.progress import Meter, say
from pipelines.passes.stream import stream
from pipelines.passes.units import UnitSize, cut, rows_per_unit
from pipelines.passes.worker import DecodedUnit, ModelWorker
from pipelines.train.addition import Start
from pipelines.train.engines import scoring_trials
from pipelines.train.first import NUM_FIRST, first_images
from pipelines.train.job import TrainingJob

CUT_FOR = 16
"""Workers that units are cut for, however many there are."""


class Observer(ModelWorker):
    """Holds an unfitted detector; turns a unit of images into their statistics."""

    def setup(self, models: Sequence[str], num_threads: int, begun: Any, engine: str) -> None:
        """engine: of the frozen network."""
        self.load_models(models, num_threads)
        attach_backbone(self.model.detector, engine)
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
    """Scores units of images, each with the fitted detector that has not seen it."""

    def setup(self, models: Mapping[str, str], num_threads: int, keep: bool, total: int) -> None:
        """models: file of rows -> the model that scores them. keep: the images' vectors. total:
        images of all units."""
        self.places, self.num_threads, self.keep, self.total = models, num_threads, keep, total
        self.load(next(iter(models.values())))

    def load(self, place: str) -> None:
        self.load_models([place], self.num_threads)
        self.loaded = place

    def work(self, images: DecodedUnit) -> dict[str, Any]:
        place = self.places[images.unit.uri]
        if place != self.loaded:  # units come sorted by their files
            self.load(place)
        held_out = HeldOut()
        if images.good:
            ids = [str(images.rows[i]["image_id"]) for i in images.good]
            pixels = torch.from_numpy(images.images)
            held_out = HeldOut.of(self.model.detector, pixels, ids, self.keep, self.total)
        return {
            "errors": pickle.dumps(list(images.errors.values())),
            "held_out": pickle.dumps(held_out, protocol=5),
        }


def fit_statistics(
    job: TrainingJob, start: Start, detector: StatisticsDetector[Any, Any], resources: Resources
) -> None:
    """Fit the detector to the rows of the job and to what the start has, calibrate it, save it."""
    fit = _Fit(job, detector, start.statistics, resources)
    fit.observe()
    held_out = fit.score()
    facts = {**job.facts, "num_unreadable": len(fit.errors), "history": [fit.fits.fit()]}
    if isinstance(detector, Extendable):
        held_out = HeldOut.merge([start.held_out.rescored(detector), held_out])
    calibration = held_out.calibration(job.config.calibration_folds)
    if calibration is None:
        say(NO_CALIBRATION)
    else:
        facts["calibration"] = calibration.method
    if fit.errors:
        say(f"{len(fit.errors)} images cannot be read and are left out; the first: {fit.errors[0]}")
    model = Model(detector.eval(), calibration, facts)
    facts |= scoring_trials(job, model)
    model.save(job.model, held_out.files())


class _Fit:
    """The passes of one fit over the archive."""

    def __init__(
        self,
        job: TrainingJob,
        detector: StatisticsDetector[Any, Any],
        earlier: Sequence[Any],
        resources: Resources,
    ) -> None:
        self.job, self.detector, self.resources = job, detector, resources
        self.fits = SubsetFits(detector, earlier)
        self.errors: list[str] = []
        """Why images could not be read."""

    def observe(self) -> None:
        """Gather the statistics of all subsets that are fitted to."""
        files = self._files(self.fits.fitted)
        if not files:  # all of a few added images may be held out
            return
        unfitted = Model(self.detector, None).save(self.job.place("uncalibrated", "unfitted"))
        arguments = {
            "models": [unfitted],
            "begun": self._begin(),
            "num_threads": self.resources.threads,
            "engine": self.job.engine,
        }
        for subset, row in self._passed("fitting", files, Observer, arguments):
            self.errors += pickle.loads(row["errors"])
            self.fits.add(subset, pickle.loads(row["statistics"]))

    def score(self) -> HeldOut:
        """Score the images that calibrate, each by a model that has not seen it."""
        files, models = self._files(self.fits.scored), {}
        for subset, part in files.items():
            self.fits.fit(subset)
            place = self.job.place("uncalibrated", f"for-{subset}")
            models[part.uri] = Model(self.detector.eval(), None).save(place)
        if not models:
            return HeldOut()
        arguments = {
            "models": models,
            "num_threads": self.resources.threads,
            "keep": self.fits.keeps_vectors,
            "total": sum(part.num_rows for part in files.values()),
        }
        scored = []
        for subset, row in self._passed("calibrating", files, Calibrator, arguments):
            if subset not in self.fits.fitted:  # else the first pass has reported them
                self.errors += pickle.loads(row["errors"])
            scored.append(pickle.loads(row["held_out"]))
        return HeldOut.merge(scored)

    def _files(self, subsets: Sequence[str]) -> dict[str, Part]:
        """The rows of each subset that has some, in a file of their own."""
        rows, files = self.job.table(), {}
        for subset in subsets:
            chosen = rows.filter(pc.equal(rows["part"], subset))
            if len(chosen):
                uri = self.job.place("uncalibrated", f"{subset}.parquet")
                storage.write_table(uri, chosen)
                files[subset] = Part(uri, len(chosen))
        return files

    def _begin(self) -> Any:
        """Empty statistics, made from the first images."""
        rows = self.job.table()
        fitted = rows.filter(pc.is_in(rows["part"], pa.array(self.fits.fitted)))
        first = fitted.slice(0, NUM_FIRST)
        images = first_images(self.job, first)
        if not len(images):
            raise TrainingError(
                f"{self.job.facts['source']}: none of the first {len(first)} images can be read: "
                f"give images that decode"
            )
        return self.detector.begin(images)

    def _passed(
        self,
        title: str,
        files: Mapping[str, Part],
        worker: type[ModelWorker],
        arguments: dict[str, Any],
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """A pass over files of rows: subset and result of each unit, in the order of the units,
        whose cut does not depend on the number of workers. So neither does the model."""
        preprocessings = [self.job.preprocessing]
        total = sum(part.num_rows for part in files.values())
        size = UnitSize(rows_per_unit(preprocessings, total, CUT_FOR))
        units = cut(list(files.values()), size)
        subsets = {part.uri: subset for subset, part in files.items()}
        with Meter(title, total, "images") as meter:
            results = stream(units, worker, arguments, preprocessings, self.resources)
            for row in in_order(results):
                yield subsets[units[int(row["number"])].uri], row
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
