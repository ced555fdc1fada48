"""Models at work on the units of an archive: what is missing, and what has failed before."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ganad.archive.parts import ROWS_PER_PART
from ganad.images.decode import Preprocessing
from ganad.saved import read_info
from ganad.scores import regions
from ganad.scores.checksums import CheckedFile, Damaged
from ganad.scores.files import REGIONS, ScoreFile
from ganad.scores.partfiles import PartFile
from ganad.scores.parts import write_schema_mark
from ganad.scores.records import Job, ManifestFacts, Run, read_runs, write_job, write_run
from ganad.storage import files as storage
from ganad.storage.threads import in_threads
from pipelines.cluster.connection import Resources
from pipelines.console.progress import Meter, say
from pipelines.passes.engines import AUTO, EAGER, check_engine
from pipelines.passes.listing import BackgroundListing
from pipelines.passes.stream import stream
from pipelines.passes.units import Unit, UnitSize, cut, rows_per_unit, rows_that_fit
from pipelines.passes.worker import distinct
from pipelines.score.engines import choose
from pipelines.score.plan import Missing, Plan
from pipelines.score.retry import FOLDER, finish_retry, open_retry
from pipelines.score.scorer import Scorer
from pipelines.score.totals import Totals


@dataclass(frozen=True)
class ModelFolder:
    """What the driver knows of a model without loading it."""

    path: str
    id: str
    preprocessing: Preprocessing
    info: Mapping[str, Any]

    @staticmethod
    def read(folder: str) -> ModelFolder:
        """Raises ModelError if the folder is not a saved model."""
        info = read_info(folder)
        preprocessing = Preprocessing(**info["preprocessing"])
        return ModelFolder(storage.absolute(folder), str(info["id"]), preprocessing, info)

    def run(self, manifest: str, before: Run | None) -> Run:
        """The record of a run that begins now; before: that of the last one."""
        kept = {} if before is None else before.model_dump(include={"engine", "engine_trials"})
        return Run(
            **kept,
            model=self.id,
            path=self.path,
            detector=self.info["detector"],
            config=self.info["config"],
            command=sys.argv,
            started_at=datetime.now(UTC),
            manifest=ManifestFacts(uri=manifest),
        )


class Scoring:
    """One command's work on a table."""

    def __init__(
        self,
        models: Sequence[ModelFolder],
        table: str,
        archive: BackgroundListing,
        resources: Resources,
        totals: Totals,
        engine: str = EAGER,
        levels: Mapping[str, float] | None = None,
    ) -> None:
        """levels: of the models whose regions are wanted."""
        check_engine(engine, resources)
        self.models = {model.id: model for model in models}
        self.table, self.archive, self.resources, self.totals = table, archive, resources, totals
        self._before = read_runs(table)
        self.runs = {m.id: m.run(archive.uri, self._before.get(m.id)) for m in models}
        self._engine, self._levels = engine, levels or {}
        self._begun: set[str] = set()
        self._num_before = 0

    def begin(self) -> Job:
        """Write the job of a new table."""
        preprocessings = distinct([model.preprocessing for model in self.models.values()])
        num, workers = self.archive.num_images, self.resources.num_workers
        rows = rows_per_unit(preprocessings, num, workers)
        # With GPUs a unit's pixels go from the decoding to the worker in one piece.
        most = rows_that_fit(preprocessings) if self.resources.gpus else ROWS_PER_PART
        job = Job(
            format=2,
            manifest=self.archive.id,
            rows_per_unit=rows,
            most_rows_per_unit=max(rows, min(most, ROWS_PER_PART)),
        )
        write_job(self.table, job)
        return job

    def score(self, missing: Missing, num_before: int) -> None:
        """Score units with the models that have not scored them. num_before: images of the units
        so far that were scored before this command."""
        archive, totals = self.archive, self.totals
        if num_before > self._num_before:
            self._num_before = num_before
            of = f" of {archive.num_images:,}" if archive.manifest is not None else ""
            say(f"{num_before:,}{of} images are scored already")
        for models, units in missing.items():
            done = num_before + totals.num_scored
            with Meter("scoring", archive.num_images, "images", done) as meter:
                for num in self._work(units, models, self.table):
                    totals.num_scored += num
                    meter.expect(archive.num_images, archive.manifest is None)
                    meter.update(meter.done + num, totals.remark())

    def remove_damaged(self, files: Sequence[ScoreFile]) -> bool:
        """Remove those that cannot be read or that have changed; False if there are none."""
        found = regions.part_files(self.table, files)
        intact = in_threads(
            lambda file: _is_intact(file, found.get(f"{REGIONS}/{file.path}")),
            files,
            remote=storage.is_remote(self.table),
        )
        damaged = [file for file, good in zip(files, intact, strict=True) if not good]
        if damaged:
            say(
                f"{len(damaged):,} damaged parts are scored again, the first: {damaged[0].path} of "
                f"{self.table}"
            )
        for file in damaged:
            storage.remove(file.uri)
        return bool(damaged)

    def retry(self, size: UnitSize) -> None:
        """Score images again that have an error. size: of the table's units."""
        parts = self.archive.wait_for_end().parts
        rows = open_retry(self.table, list(self.models), cut(parts, size))
        if not rows:
            return
        folder, total = storage.join(self.table, FOLDER), sum(part.num_rows for part in rows)
        units = Plan(folder, list(self.models), UnitSize(size.rows))
        missing = units.add(rows)
        with Meter("scoring again", total, "images", units.num_images_before) as meter:
            for models, some in missing.items():
                for num in self._work(some, models, folder):
                    meter.update(meter.done + num, self.totals.remark())
        finish_retry(self.table)
        self.totals.num_retried = total

    def _work(self, units: Sequence[Unit], models: Sequence[str], table: str) -> Iterator[int]:
        """Score units into a table; yields the images of each when it is done."""
        self._begin_runs(models, units[0])
        arguments = {
            "models": [self.models[model].path for model in models],
            "engines": [self.runs[model].engine for model in models],
            "levels": [self._levels.get(model) for model in models],
            "num_threads": self.resources.threads,
            "table": table,
        }
        preprocessings = distinct([self.models[model].preprocessing for model in models])
        for result in stream(units, Scorer, arguments, preprocessings, self.resources):
            self.totals.add(result)
            yield int(result["num"])

    def _begin_runs(self, models: Iterable[str], first: Unit) -> None:
        """Until its record is written again, at the end, a model counts as unfinished."""
        for model in sorted(set(models) - self._begun):
            if model not in self._before:
                engine, trials = self._choose(model, first)
                found = {"engine": engine, "engine_trials": trials}
                self.runs[model] = self.runs[model].model_copy(update=found)
            # Scores of one model come from one engine, whatever is typed the next time.
            elif self._engine not in (AUTO, self.runs[model].engine):
                engine = self.runs[model].engine
                say(f"{model} goes on with the engine that it began with: {engine}")
            if model in self._levels:
                regions.begin(self.table, model)
            write_run(self.table, self.runs[model])
            write_schema_mark(self.table, model)
            self._begun.add(model)

    def _choose(self, model: str, unit: Unit) -> tuple[str, list[dict[str, Any]]]:
        folder = self.models[model]
        listed = self.archive.manifest is not None
        choice = choose(
            folder.path,
            model,
            folder.preprocessing,
            self._engine,
            unit,
            self.resources,
            self.archive.num_images if listed else math.inf,
        )
        return choice.engine, list(choice.trials)


def _is_intact(file: ScoreFile, found: PartFile | None) -> bool:
    """found: the regions of the file, if there should be some."""
    try:
        CheckedFile(file.uri, file.size).check()
        if found is not None:
            if not found.size:
                return False
            CheckedFile(found.uri, found.size).check()
    except Damaged:
        return False
    return True
