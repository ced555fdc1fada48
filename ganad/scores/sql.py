"""SQL over the Parquet parts of a score table, in a DuckDB that can read these and nothing else."""

from __future__ import annotations

import os
import secrets
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa
from fsspec.spec import AbstractFileSystem

from ganad.errors import ArchiveError, QueryError, TableError
from ganad.storage import files as storage

BATCH_ROWS = 8192


class Session:
    """An in-memory DuckDB with the views `scores`, lazy, filters pushed down into the parts, and
    `parts`, the same with the column filename.

    SQL in it reaches no other file, local or remote, and can write none, except for what DuckDB
    itself spills into a temporary folder; its settings cannot be changed. One result is read at a
    time. Errors are TableError, beginning with what the user typed.
    """

    def __init__(self, typed: str, parts: Mapping[str, PartFile], columns: Sequence[str]) -> None:
        self.typed = typed
        self.columns = columns
        self.connection = duckdb.connect(
            config={
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "python_enable_replacements": False,  # or SQL could read Python's variables
                "temp_directory": os.path.join(
                    tempfile.gettempdir(), f"ganad-spill-{secrets.token_hex(8)}"
                ),
            }
        )
        self._files = PartFiles(parts)
        self.connection.register_filesystem(self._files)
        self.connection.execute("SET TimeZone = 'UTC'")
        self.connection.execute("SET parquet_metadata_cache = true")  # or each query reads it anew
        listed = ", ".join(f"'{PartFiles.protocol}://{quoted(part)}'" for part in parts)
        with self._in_words():
            self.connection.execute(
                f"CREATE VIEW parts AS SELECT *, filename FROM read_parquet([{listed}], "
                f"hive_partitioning = true, hive_types_autocast = false)"
            )
            self.connection.execute(f"CREATE VIEW scores AS SELECT {', '.join(columns)} FROM parts")
        self.connection.execute(f"SET allowed_directories = ['{PartFiles.protocol}://']")
        self.connection.execute("SET enable_external_access = false")
        self.connection.execute("SET lock_configuration = true")

    def query(self, sql: str, *parameters: Any) -> pa.Table:
        """The result of our own SQL, in memory; parameters are $1, $2 …"""
        schema, batches = self.stream(sql, *parameters)
        return pa.Table.from_batches(list(batches), schema)

    def stream(
        self, sql: str, *parameters: Any, shown: str | None = None, batch_rows: int = BATCH_ROWS
    ) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """The result of SQL, batch by batch.

        shown: SQL of the user's as errors name it: faults are then its own, and QueryErrors.
        """
        with self._in_words(shown):
            if shown is not None:
                _check_select(self.connection.extract_statements(sql), shown)
            relation = self.connection.sql(sql, params=list(parameters))
            reader = relation.to_arrow_reader(batch_rows)
        return reader.schema, self._batches(reader, shown)

    def _batches(self, reader: pa.RecordBatchReader, shown: str | None) -> Iterator[pa.RecordBatch]:
        try:
            while True:
                with self._in_words(shown):
                    batch = next(reader, None)
                if batch is None:
                    return
                yield batch
        finally:
            reader.close()

    def close(self) -> None:
        """Free the memory and the temporary folder."""
        self.connection.close()

    @contextmanager
    def _in_words(self, shown: str | None = None) -> Iterator[None]:
        try:
            yield
        except (duckdb.Error, OSError, pa.ArrowException) as error:  # the last two while streaming
            if self._files.failure is not None:
                failure = self._files.failure
                raise TableError(f"{self.typed} cannot be read: {failure}") from failure
            message = shortened(str(error).strip().split("\n")[0].rstrip(".!"), 200)
            if shown is None:
                raise TableError(
                    f"{self.typed} holds parts that are no score table ({message}): "
                    f"score into a fresh folder"
                ) from None
            raise QueryError(
                f"{shown}: {message}; the view is scores, with the columns "
                f"{', '.join(self.columns)}"
            ) from None


@dataclass(frozen=True)
class PartFile:
    """Where a part lies, and its bytes, known from the listing: DuckDB asks for the size of every
    part several times a query."""

    uri: str
    size: int


class PartFiles(AbstractFileSystem):
    """The parts of one table as a filesystem for DuckDB that can read these and do nothing else.

    Allowing DuckDB the table's folder would let COPY write into it; here there is nothing to
    write to, and local and S3 tables take the same way.
    """

    protocol = "scores"
    cachable = False

    def __init__(self, parts: Mapping[str, PartFile]) -> None:
        super().__init__()
        self.parts = parts
        self.failure: ArchiveError | None = None
        """What really went wrong; DuckDB passes on a whole traceback as text."""

    def _open(self, path: str, mode: str = "rb", **options: Any) -> _OpenPart:
        if mode != "rb":
            raise PermissionError("a score table can only be read")
        return _OpenPart(self, self._part(path).uri)

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        return {"name": path, "size": self._part(path).size, "type": "file"}

    @contextmanager
    def noting_failure(self) -> Iterator[None]:
        try:
            yield
        except ArchiveError as error:
            # Without its frames, which would keep DuckDB's objects alive in a circle.
            self.failure = ArchiveError(str(error))
            if error.__cause__ is not None:
                self.failure.__cause__ = error.__cause__.with_traceback(None)
            raise

    def modified(self, path: str) -> datetime:
        # DuckDB asks so as to trust what it has cached, and a finished part does not change.
        return datetime.fromtimestamp(0, UTC)

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:
        raise PermissionError("a score table cannot be listed")

    def _part(self, path: str) -> PartFile:
        try:
            return self.parts[self._strip_protocol(path)]
        except KeyError:
            raise FileNotFoundError(f"{path} is no part of this score table") from None


class _OpenPart:
    """One part, opened. DuckDB shares the handle among its threads, each of which seeks and then
    reads; so every thread has a position of its own."""

    def __init__(self, files: PartFiles, uri: str) -> None:
        self.files = files
        self.uri = uri
        self.thread = threading.local()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        assert whence == os.SEEK_SET
        self.thread.offset = offset
        return offset

    def read(self, size: int) -> bytes:
        with self.files.noting_failure():
            data = storage.read_bytes(self.uri, self.tell(), size)
        self.thread.offset = self.tell() + len(data)
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


def shortened(text: str, limit: int) -> str:
    """Text in one line of at most limit characters."""
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def quoted(text: str) -> str:
    """Text for between single quotes in SQL."""
    return text.replace("'", "''")
