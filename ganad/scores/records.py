"""Records stored in a score table: its job, and the last run of each model."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, StringConstraints

from ganad.errors import TableError
from ganad.scores.files import JOB, OLD_JOB, OLD_RUN, RUNS
from ganad.storage import files as storage
from ganad.storage.records import R, Record, read_record, write_record

Text = Annotated[str, StringConstraints(max_length=1_000_000)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^/\\]+$")]
UnitRows = Annotated[int, Field(ge=1, le=1_000_000)]
Counts = dict[Text, NonNegativeInt]

_FRESH = "give a fresh --out, or put the file back"
_AGAIN = "remove it, and run the same ganad score again"


class Job(Record):
    """_job.json: the images to score and the size of a unit. Written once."""

    format: Literal[1, 2] = 1
    """2: units grow. A version that does not know it would cut others, so it must refuse."""
    manifest: Name
    """Id of the manifest; it stays the same when images are added."""
    rows_per_unit: UnitRows
    """Of the first units."""
    most_rows_per_unit: UnitRows | None = None
    """Units grow to this size with the archive; None if they do not, as in older tables."""


class ManifestFacts(Record):
    """Location of the manifest, and its contents when the run finished."""

    uri: Text
    digest: Text | None = None
    images: NonNegativeInt | None = None
    damaged: NonNegativeInt = 0
    """Number of damaged shards."""


class Run(Record):
    """_runs/MODEL.json: the last run of a model. Written when scoring starts, and again, with
    counts, when every image is in the table."""

    format: Literal[1] = 1
    model: Name
    path: Text
    """Where the model was loaded from."""
    detector: Text = ""
    config: dict[str, Any] = {}
    command: list[Text] = []
    started_at: datetime
    finished_at: datetime | None = None
    manifest: ManifestFacts | None = None
    engine: Text = "eager"
    """The engine of the forward pass. A table keeps the engine that a model started with."""
    engine_trials: list[dict[str, Any]] = []
    """Results of the engines on the first images; see ganad.engines.trial."""
    counts: Counts = {}
    """Keys: in (rows), distinct (images), scored, failed."""
    failure_kinds: Counts = {}
    failures: Counts = {}
    """The most frequent error texts, with their counts."""
    work: dict[str, Any] = {}
    """See ganad.scores.notes.summary."""
    timings: dict[str, Any] = {}
    versions: dict[str, Text] = {}

    @property
    def finished(self) -> bool:
        return self.finished_at is not None

    @property
    def num_damaged(self) -> int:
        """Shards that could not be listed to their end."""
        return self.manifest.damaged if self.manifest is not None else 0


class OldJob(Record):
    """job.json of earlier versions. It held first_part during the listing, and manifest and images
    afterwards."""

    models: list[Name]
    manifest: Text | None = None
    first_part: Text | None = None
    rows_per_unit: UnitRows


class _OldModel(Record):
    model: Name
    path: Text
    detector: Text = ""
    config: dict[str, Any] = {}


class _OldRun(Record):
    """run.json of earlier versions: one run for all models, written at its end."""

    models: list[_OldModel]
    manifest: ManifestFacts
    counts: dict[Name, Counts]
    command: list[Text] = []
    started_at: datetime
    finished_at: datetime
    failure_kinds: Counts = {}
    failures: Counts = {}
    work: dict[str, Any] = {}
    timings: dict[str, Any] = {}
    versions: dict[str, Text] = {}

    def runs(self) -> Iterable[Run]:
        shared = self.model_dump(exclude={"models", "counts"})
        for model in self.models:
            counts = self.counts.get(model.model, {})
            yield Run(**shared, **model.model_dump(), counts=counts)


def read_job(table: str) -> Job | None:
    """The table's job, or None if it has none or one of an earlier version. Raises TableError."""
    return _read(table, JOB, Job, _FRESH)


def write_job(table: str, job: Job) -> None:
    """Raises ArchiveError."""
    write_record(storage.join(table, JOB), job)


def read_runs(table: str) -> dict[str, Run]:
    """The last run of each model, by model. Raises TableError for a damaged file."""
    old = _read(table, OLD_RUN, _OldRun, _AGAIN)
    runs = {} if old is None else {run.model: run for run in old.runs()}
    for name in storage.list_names(storage.join(table, RUNS)):
        if name.endswith(".json") and not name.startswith("."):
            run = _read(table, f"{RUNS}/{name}", Run, _AGAIN)
            if run is not None:
                runs[run.model] = run
    return runs


def write_run(table: str, run: Run) -> None:
    """Raises ArchiveError."""
    write_record(storage.join(table, RUNS, f"{run.model}.json"), run)


def read_old_job(table: str) -> OldJob | None:
    """The job of a table that an earlier version started. Raises TableError."""
    return _read(table, OLD_JOB, OldJob, _FRESH)


def replace_old(table: str, job: Job) -> None:
    """Convert an earlier version's records, if there are any, to the current format."""
    if not {OLD_JOB, OLD_RUN} & set(storage.list_names(table)):
        return
    for run in read_runs(table).values():
        write_run(table, run)
    write_job(table, job)
    for name in (OLD_RUN, OLD_JOB):
        storage.remove(storage.join(table, name))


def _read(table: str, name: str, kind: type[R], remedy: str) -> R | None:
    uri = storage.join(table, name)
    return read_record(uri, kind, remedy, TableError) if storage.exists(uri) else None
