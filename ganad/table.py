"""The score table: Parquet parts by model, one row per image and model, and SQL over them.

TABLE/job.json                          which models score which images; written first
TABLE/model=<detector>-<digest>/part-*.parquet
TABLE/run.json                          command, counts, versions, timings; written last
"""

from __future__ import annotations

import os
import re
import secrets
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import duckdb
import pyarrow as pa
from fsspec.spec import AbstractFileSystem

from ganad.archive import storage
from ganad.errors import ArchiveError, QueryError, TableError

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
_BATCH_ROWS = 8192


class ScoreTable:
    """A score table as it is now: the parts finished so far, local or on S3.

    Raises TableError unless the folder is a score table with at least one finished part.
    """

    def __init__(self, uri: str) -> None:
        self.typed = uri
        self.uri = storage.absolute(uri)
        folders = [name for name in storage.list_folders(self.uri) if name.startswith(_MODEL)]
        self.parts = {
            f"{folder}/{name}": storage.join(self.uri, folder, name)
            for folder in folders
            for name in storage.list_names(storage.join(self.uri, folder))
            if _PART.fullmatch(name)
        }
        """Path inside the table -> URI. Writers rename a part into place when it is whole."""
        self.models = sorted({part.split("/")[0].removeprefix(_MODEL) for part in self.parts})
        if not self.parts:
            raise TableError(self._why_empty(bool(folders)))

    def _why_empty(self, has_folders: bool) -> str:
        if not storage.exists(self.uri):
            return f"{self.typed} does not exist: give a folder that ganad score wrote"
        if has_folders or storage.exists(storage.join(self.uri, "job.json")):
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
        """An in-memory DuckDB whose view `scores` reads the parts lazily, filters pushed down.

        It reaches no other file, local or remote, and nothing in it can write one, except for
        what DuckDB itself spills into a temporary folder. Its settings cannot be changed.
        """
        return self._open()[0]

    def _open(self) -> tuple[duckdb.DuckDBPyConnection, _Parts]:
        connection = duckdb.connect(
            config={
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "python_enable_replacements": False,  # or SQL could read Python's variables
                "temp_directory": os.path.join(
                    tempfile.gettempdir(), f"ganad-spill-{secrets.token_hex(8)}"
                ),
            }
        )
        files = _Parts(self.parts)
        connection.register_filesystem(files)
        connection.execute("SET TimeZone = 'UTC'")
        listed = ", ".join(_quoted(f"{_Parts.protocol}://{part}") for part in self.parts)
        with self._errors_in_words(files):
            connection.execute(
                f"CREATE VIEW parts AS SELECT *, filename FROM read_parquet([{listed}], "
                f"hive_partitioning = true, hive_types_autocast = false)"
            )
            connection.execute(f"CREATE VIEW scores AS SELECT {', '.join(COLUMNS)} FROM parts")
        connection.execute(f"SET allowed_directories = ['{_Parts.protocol}://']")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        return connection, files

    def query(self, sql: str, typed: str | None = None) -> pa.Table:
        """The result of one SELECT over the view `scores`, in memory.

        typed is what errors begin with where the user typed only a part of the SQL.
        Raises QueryError for SQL that is wrong, or that is anything but one SELECT.
        """
        schema, batches = self.stream(sql, typed)
        return pa.Table.from_batches(list(batches), schema)

    def stream(
        self, sql: str, typed: str | None = None
    ) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """Like query, some thousand rows at a time, for results larger than memory."""
        shown = f'"{_shortened(sql if typed is None else typed, 100)}"'
        connection, files = self._open()
        try:
            with self._errors_in_words(files, shown):
                _check_select(connection.extract_statements(sql), shown)
                reader = connection.sql(sql).to_arrow_reader(_BATCH_ROWS)
        except BaseException:
            connection.close()
            raise
        return reader.schema, self._batches(reader, connection, files, shown)

    def _batches(
        self,
        reader: pa.RecordBatchReader,
        connection: duckdb.DuckDBPyConnection,
        files: _Parts,
        shown: str,
    ) -> Iterator[pa.RecordBatch]:
        try:
            while True:
                with self._errors_in_words(files, shown):
                    batch = next(reader, None)
                if batch is None:
                    return
                yield batch
        finally:
            reader.close()
            connection.close()

    @contextmanager
    def _errors_in_words(self, files: _Parts, shown: str | None = None) -> Iterator[None]:
        try:
            yield
        except (duckdb.Error, OSError, pa.ArrowException) as error:  # the last two while streaming
            if files.failure is not None:
                raise TableError(f"{self.typed} cannot be read: {files.failure}") from None
            message = _shortened(str(error).strip().split("\n")[0].rstrip(".!"), 200)
            if shown is None:
                raise TableError(
                    f"{self.typed} holds parts that are no score table ({message}): "
                    f"score into a new folder"
                ) from None
            raise QueryError(
                f"{shown}: {message}; the view is scores, with the columns {', '.join(COLUMNS)}"
            ) from None

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
        names = (
            name.removeprefix(f"{_Parts.protocol}://") for name in rows["filename"].to_pylist()
        )
        return sorted(self.parts[name] for name in names)

    def check_counts(self) -> list[str]:
        """What is wrong with the table, in sentences; empty when every image is there once and
        the counts are those of run.json."""
        counts = self.counts()
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


class _Parts(AbstractFileSystem):
    """The parts of one table as a filesystem for DuckDB that can read these and do nothing else.

    Allowing DuckDB the table's folder would let COPY write into it; here there is nothing to
    write to, and local and S3 tables take the same way.
    """

    protocol = "scores"
    cachable = False

    def __init__(self, parts: dict[str, str]) -> None:
        super().__init__()
        self.parts = parts
        self.failure: str | None = None
        """What really went wrong; DuckDB passes on a whole traceback as text."""

    def _open(self, path: str, mode: str = "rb", **options: Any) -> _Part:
        if mode != "rb":
            raise PermissionError("a score table can only be read")
        return _Part(self, self._uri(path))

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        uri = self._uri(path)
        with self.noting_failure():
            size = storage.size_of(uri)
            if size is None:
                raise ArchiveError(
                    f"{uri}: has vanished; was the table moved or removed meanwhile?"
                )
        return {"name": self._strip_protocol(path), "size": size, "type": "file"}

    @contextmanager
    def noting_failure(self) -> Iterator[None]:
        try:
            yield
        except ArchiveError as error:
            self.failure = str(error)
            raise

    def modified(self, path: str) -> datetime:
        # A finished part never changes, so any constant is true.
        return datetime.fromtimestamp(0, UTC)

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:
        raise PermissionError("a score table cannot be listed")

    def _uri(self, path: str) -> str:
        try:
            return self.parts[self._strip_protocol(path)]
        except KeyError:
            raise FileNotFoundError(f"{path} is no part of this score table") from None


class _Part:
    """One part, opened. DuckDB shares the handle among its threads, each of which seeks and then
    reads; so every thread has a position of its own."""

    def __init__(self, files: _Parts, uri: str) -> None:
        self.files = files
        self.uri = uri
        self.thread = threading.local()

    def seek(self, offset: int, whence: int = 0) -> int:
        assert whence == os.SEEK_SET
        self.thread.offset = offset
        return offset

    def read(self, size: int) -> bytes:
        offset = getattr(self.thread, "offset", 0)
        with self.files.noting_failure():
            data = storage.read_bytes(self.uri, offset, size)
        self.thread.offset = offset + len(data)
        return data

    def tell(self) -> int:
        return getattr(self.thread, "offset", 0)

    def close(self) -> None:
        pass


def _check_select(statements: list[Any], shown: str) -> None:
    if len(statements) != 1:
        raise QueryError(f"{shown} holds {len(statements)} statements: give one SELECT over scores")
    kind = statements[0].type.name
    if kind != "SELECT":
        raise QueryError(
            f"{shown} is a statement of the kind {kind}, and a score table can only be read: "
            f"give one SELECT over scores"
        )


def _shortened(text: str, limit: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
