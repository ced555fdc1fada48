"""The score table: Parquet parts by model, one row per image and model, and SQL over them.

Its files are listed in ganad.scores.files.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import cached_property

import duckdb
import pyarrow as pa

from ganad.errors import TableError
from ganad.scores import regions
from ganad.scores.counting import Rows, count_failures, count_images, count_rows
from ganad.scores.files import JOB, MANIFEST, OLD_JOB, ScoreFile, list_files, list_models, live
from ganad.scores.partfiles import PartFile
from ganad.scores.records import Counts, Run, read_runs
from ganad.scores.sql import Session, shortened
from ganad.storage import files as storage
from ganad.storage.database import Limits

SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("member", pa.string()),
        ("name", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("score", pa.float64()),
        ("p_value", pa.float64()),
        ("terms", pa.map_(pa.string(), pa.float64())),
        ("label", pa.string()),
        ("abnormal", pa.bool_()),
        ("mask", pa.string()),
        ("error", pa.string()),
        ("scored_at", pa.timestamp("us", "UTC")),
        ("model", pa.string()),
    ]
)
"""Columns of a part. `model` is in the folder's name as well; parts of earlier versions have it
there only."""
COLUMNS = tuple(SCHEMA.names)


class ScoreTable:
    """A score table as it is now: the parts finished so far, local or on S3.

    models: use only the parts of these models. Raises TableError unless the folder is a score table
    with at least one finished part.
    """

    def __init__(self, uri: str, models: Collection[str] | None = None) -> None:
        self.typed = uri
        self.uri = storage.absolute(uri)
        files = live(list_files(self.uri))
        self.parts = {f.path: f for f in files if models is None or f.model in models}
        """Path inside the table -> file."""
        self._rows: list[Rows] | None = None
        """Of each part, once they are counted."""
        self.models = sorted({file.model for file in self.parts.values()})
        if not self.parts:
            raise TableError(self._why_empty())

    def _why_empty(self) -> str:
        if not storage.exists(self.uri):
            return f"{self.typed} does not exist: give a folder that ganad score wrote"
        begun = {JOB, OLD_JOB} & set(storage.list_names(self.uri))
        if begun or list_models(self.uri):
            return (
                f"{self.typed} has no finished parts yet: wait for ganad score, "
                f"or run the same command again to continue"
            )
        return (
            f"{self.typed} is not a score table (it holds no folder model=…): "
            f"give a folder that ganad score wrote"
        )

    @cached_property
    def runs(self) -> dict[str, Run]:
        """The last run of each model, unfinished ones included. Raises TableError."""
        return read_runs(self.uri)

    @property
    def unfinished(self) -> list[str]:
        """Models that have not scored every image yet."""
        models = {*self.models, *self.runs}
        return sorted(m for m in models if m not in self.runs or not self.runs[m].finished)

    @property
    def manifest_uri(self) -> str:
        """URI of the manifest."""
        run = next((run for run in self.runs.values() if run.manifest is not None), None)
        if run is None or run.manifest is None:
            return storage.join(self.uri, MANIFEST)
        return run.manifest.uri

    @property
    def last_run(self) -> Run | None:
        """The run that finished last; None while any run is unfinished."""
        if self.unfinished:
            return None
        return max(self.runs.values(), key=lambda run: run.finished_at or run.started_at)

    def connect(self) -> duckdb.DuckDBPyConnection:
        """An in-memory DuckDB with the view `scores` over all parts, and `regions` if there are
        any, restricted as described in ganad.scores.sql.Session."""
        return self.session().connection

    def session(self, limits: Limits | None = None, *, asked_once: bool = False) -> Session:
        """A connection with readable errors; close it after use. asked_once: for one query."""
        found = regions.part_files(self.uri, list(self.parts.values()))
        parts = self.part_files
        return Session(self.typed, parts, COLUMNS, limits, found, asked_once=asked_once)

    @property
    def part_files(self) -> dict[str, PartFile]:
        """The parts by path, in the form that a session reads."""
        return {path: PartFile(file.uri, file.size) for path, file in self.parts.items()}

    def query(self, sql: str, typed: str | None = None) -> pa.Table:
        """The result of one SELECT over the view `scores`, in memory.

        typed: the text that errors begin with, if the user typed only a part of the SQL.
        Raises QueryError for invalid SQL, or for anything but one SELECT.
        """
        schema, batches = self.stream(sql, typed)
        return pa.Table.from_batches(list(batches), schema)

    def stream(
        self, sql: str, typed: str | None = None, *, limits: Limits | None = None
    ) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """Like query, but in batches of several thousand rows, for results larger than memory.
        limits: memory and disk that the query may use."""
        session = self.session(limits, asked_once=True)
        try:
            shown = f'"{shortened(sql if typed is None else typed, 100)}"'
            schema, batches = session.stream(sql, shown=shown)
        except BaseException:
            session.close()
            raise

        def closing() -> Iterator[pa.RecordBatch]:
            try:
                yield from batches
            finally:
                session.close()

        return schema, closing()

    def counts(self) -> dict[str, dict[str, int]]:
        """Per model: rows (in), distinct images, scored and failed rows. Raises TableError."""
        files = list(self.parts.values())
        self._rows, images = count_images(files, self.typed)
        counts = {
            model: {"in": 0, "distinct": num, "scored": 0, "failed": 0}
            for model, num in images.items()
        }
        for file, rows in zip(files, self._rows, strict=True):
            counts[file.model]["in"] += rows.num
            counts[file.model]["scored"] += rows.scored
            counts[file.model]["failed"] += rows.failed
        return counts

    def failures(self) -> dict[str, int]:
        """Error text -> number of images that have it under any model, most frequent first."""
        return count_failures(self.files_with_errors(), self.typed)

    def files_with_errors(self) -> list[ScoreFile]:
        """The parts in which at least one image has an error. Raises TableError."""
        files = list(self.parts.values())
        if self._rows is None:
            self._rows = count_rows(files, self.typed)
        return [file for file, rows in zip(files, self._rows, strict=True) if rows.failed]

    def check_counts(self, counts: Mapping[str, Mapping[str, int]] | None = None) -> list[str]:
        """Describe each problem of the table in a sentence; empty if every image occurs once and
        the counts match the runs. counts: the result of counts(), if known already."""
        counts = self.counts() if counts is None else counts
        problems = [
            f"{model}: {count['in']:,} rows for {count['distinct']:,} images, so some image occurs "
            f"twice"
            for model, count in counts.items()
            if count["in"] != count["distinct"]
        ]
        problems += [
            f"{model}: {count['in']:,} rows, of which {count['scored']:,} have a score and "
            f"{count['failed']:,} an error, so some have both or neither"
            for model, count in counts.items()
            if count["in"] != count["scored"] + count["failed"]
        ]
        for model in self.unfinished:
            problems.append(f"{model} has not finished: run the same ganad score again to continue")
        finished = {model: run for model, run in sorted(self.runs.items()) if run.finished}
        most = max((run.counts.get("in", 0) for run in finished.values()), default=0)
        for model, run in finished.items():
            problems += _difference(model, run.counts, counts.get(model, {}))
            if run.counts.get("in", 0) < most:
                problems.append(
                    f"{model} has {run.counts.get('in', 0):,} of {most:,} images, because the "
                    f"archive has grown: run ganad score with it again"
                )
        return problems


def _difference(model: str, recorded: Counts, current: Mapping[str, int]) -> list[str]:
    before, now = (
        [counts.get(key, 0) for key in ("in", "scored", "failed")] for counts in (recorded, current)
    )
    if before == now:
        return []
    return [
        f"{model}: {now[0]:,} rows ({now[1]:,} scored, {now[2]:,} failed) where its run counted "
        f"{before[0]:,} ({before[1]:,} scored, {before[2]:,} failed)"
    ]
