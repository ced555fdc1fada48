"""The score table: Parquet parts by model, one row per image and model, and SQL over them.

TABLE/job.json                          which models score which images; written first
TABLE/model=<detector>-<digest>/part-*.parquet
TABLE/run.json                          command, counts, versions, timings; written last
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import duckdb
import pyarrow as pa

from ganad.errors import TableError
from ganad.scores.partfiles import PartFile, PartFiles
from ganad.scores.sql import Session, shortened
from ganad.storage import files as storage
from ganad.storage import s3
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
    ]
)
"""Columns of a part. `model` is added from the folder's name when reading."""
COLUMNS = (*SCHEMA.names, "model")

_MODEL = "model="
_PART = re.compile(r"part-.+\.parquet")


class ScoreTable:
    """A score table as it is now: the parts finished so far, local or on S3.

    Raises TableError unless the folder is a score table with at least one finished part.
    """

    def __init__(self, uri: str) -> None:
        self.typed = uri
        self.uri = storage.absolute(uri)
        self.parts = dict(sorted(_list_parts(self.uri)))
        """Path inside the table -> file. Writers rename a part into place when it is whole."""
        self.models = sorted({part.split("/")[0].removeprefix(_MODEL) for part in self.parts})
        if not self.parts:
            raise TableError(self._why_empty())

    def _why_empty(self) -> str:
        if not storage.exists(self.uri):
            return f"{self.typed} does not exist: give a folder that ganad score wrote"
        has_folder = any(name.startswith(_MODEL) for name in storage.list_folders(self.uri))
        if has_folder or storage.exists(storage.join(self.uri, "job.json")):
            return (
                f"{self.typed} has no finished parts yet: wait for ganad score, "
                f"or run the same command again to go on"
            )
        return (
            f"{self.typed} is no score table, for it holds no folder model=…: "
            f"give a folder that ganad score wrote"
        )

    @cached_property
    def run(self) -> dict[str, Any] | None:
        """run.json; None while the run has not finished."""
        uri = storage.join(self.uri, "run.json")
        if not storage.exists(uri):
            return None
        run = storage.read_json(uri)
        if not isinstance(run, dict):
            raise TableError(f"{self.typed}/run.json is no object: run the same ganad score again")
        return run

    def connect(self) -> duckdb.DuckDBPyConnection:
        """An in-memory DuckDB with the view `scores` over all parts; see
        ganad.scores.sql.Session for what it cannot do."""
        return self.session().connection

    def session(self, limits: Limits | None = None) -> Session:
        """A connection whose errors are sentences; close it after use."""
        return Session(self.typed, self.parts, COLUMNS, limits)

    def query(self, sql: str, typed: str | None = None) -> pa.Table:
        """The result of one SELECT over the view `scores`, in memory.

        typed is what errors begin with where the user typed only a part of the SQL.
        Raises QueryError for SQL that is wrong, or that is anything but one SELECT.
        """
        schema, batches = self.stream(sql, typed)
        return pa.Table.from_batches(list(batches), schema)

    def stream(
        self,
        sql: str,
        typed: str | None = None,
        *,
        as_text: bool = False,
        limits: Limits | None = None,
    ) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """Like query, some thousand rows at a time, for results larger than memory.

        as_text: types that Python cannot hold become text. limits: memory and disk of the query.
        """
        session = self.session(limits)
        try:
            shown = f'"{shortened(sql if typed is None else typed, 100)}"'
            schema, batches = session.stream(sql, shown=shown, as_text=as_text)
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
        """By model: rows in it, distinct images among them, scored and failed ones."""
        rows = self.query(
            'SELECT model, count(*) AS "in", count(DISTINCT image_id) AS "distinct", '
            "count(score) AS scored, count(error) AS failed "
            "FROM scores GROUP BY model ORDER BY model"
        ).to_pylist()
        return {row.pop("model"): row for row in rows}

    def failures(self) -> dict[str, int]:
        """Error text -> images that have it under any model, most frequent first."""
        rows = self.query(
            "SELECT error, count(DISTINCT image_id) AS num FROM scores WHERE error IS NOT NULL "
            "GROUP BY error ORDER BY num DESC, error"
        ).to_pylist()
        return {row["error"]: row["num"] for row in rows}

    def files_with_errors(self) -> list[str]:
        """URIs of the parts in which an image has an error."""
        rows = self.query("SELECT DISTINCT filename FROM parts WHERE error IS NOT NULL")
        names = map(PartFiles.name, rows["filename"].to_pylist())
        return sorted(self.parts[name].uri for name in names)

    def check_counts(self, counts: dict[str, dict[str, int]] | None = None) -> list[str]:
        """What is wrong with the table, in sentences; empty when every image is there once and
        the counts are those of run.json. counts: of counts(), where they are known already."""
        counts = self.counts() if counts is None else counts
        problems = [
            f"{model}: {count['in']:,} rows for {count['distinct']:,} images, so some image is "
            f"there twice"
            for model, count in counts.items()
            if count["in"] != count["distinct"]
        ]
        problems += [
            f"{model}: {count['in']:,} rows, of which {count['scored']:,} have a score and "
            f"{count['failed']:,} an error, so some have both or neither"
            for model, count in counts.items()
            if count["in"] != count["scored"] + count["failed"]
        ]
        if self.run is None:
            return [*problems, "the run has not finished: the same ganad score goes on with it"]
        expected = self.run.get("counts", {})
        for model in sorted({*expected, *counts}):
            said, found = (
                tuple(both.get(model, {}).get(key, 0) for key in ("in", "scored", "failed"))
                for both in (expected, counts)
            )
            if said != found:
                problems.append(
                    f"{model}: {found[0]:,} rows ({found[1]:,} scored, {found[2]:,} failed) where "
                    f"run.json says {said[0]:,} ({said[1]:,} scored, {said[2]:,} failed)"
                )
        return problems


def _list_parts(table: str) -> Iterator[tuple[str, PartFile]]:
    """On S3 by the listing's pages of a thousand keys, which hold the sizes too."""
    if storage.is_remote(table):
        _, prefix = s3.split_key(table)
        for files, _ in s3.pages(table, start=_MODEL):
            for key, size in files:
                part = key.removeprefix(prefix).lstrip("/")
                folder, _, name = part.rpartition("/")
                if "/" not in folder and _PART.fullmatch(name):
                    yield part, PartFile(storage.join(table, part), size)
        return
    for folder in storage.list_folders(table):
        if folder.startswith(_MODEL):
            for name in storage.list_names(storage.join(table, folder)):
                uri = storage.join(table, folder, name)
                if _PART.fullmatch(name):
                    yield f"{folder}/{name}", PartFile(uri, storage.size_of(uri) or 0)
