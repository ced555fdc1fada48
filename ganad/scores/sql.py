"""Runs SQL over score tables in a DuckDB that can read nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any, Literal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from ganad.errors import ArchiveError, ConfigError, QueryError, TableError
from ganad.scores.partfiles import PartFile, PartFiles
from ganad.scores.regions import COLUMNS as REGIONS
from ganad.scores.values import exact
from ganad.storage import files as storage
from ganad.storage.database import Database, Limits, identifier, quoted

BATCH_ROWS = 8192
_READ = {"SELECT", "EXPLAIN"}
_PART_IN_MESSAGE = re.compile(rf"{PartFiles.protocol}://([^'\"]+)")
_READERS = {
    ".csv": "read_csv",
    ".parquet": "read_parquet",
    ".json": "read_json",
    ".jsonl": "read_json",
}
_TAKEN = {"parts", "labelled", "ensemble", "verdicts", "regions"}
_NO_REGIONS = "name regions does not exist"
"""DuckDB's words."""
SAME_COMMAND = "run the same ganad score command again, which scores its images again"


def damaged(typed: str, part: str) -> TableError:
    """The error for a table with a part that cannot be read."""
    return TableError(f"{typed} holds a part that cannot be read ({part}): {SAME_COMMAND}")


def out_of_reach(typed: str, failure: ArchiveError) -> TableError:
    """The error for a table whose storage does not answer, or no longer has a part."""
    return TableError(f"{typed} cannot be read: {failure}")


def foreign(typed: str, reason: str) -> TableError:
    """The error for a table with files that something else wrote."""
    return TableError(
        f"{typed} holds files that are not parts of a score table ({reason}): "
        f"score into a fresh folder"
    )


class Session:
    """An in-memory DuckDB with the view `scores` over a table's Parquet parts, and the view
    `parts`, which has the column filename as well. Over the files of regions, if there are any,
    it has the view `regions`.

    Filters are pushed down into the parts. SQL cannot read or write any other file, local or
    remote, or change settings; only DuckDB itself spills into a temporary folder. One result is
    read at a time, and a signal interrupts it. Errors are TableError and begin with what the user
    typed. asked_once: for a single query, after which the parts' footers are of no use.
    """

    def __init__(
        self,
        typed: str,
        parts: Mapping[str, PartFile],
        columns: Sequence[str],
        limits: Limits | None = None,
        regions: Mapping[str, PartFile] | None = None,
        *,
        asked_once: bool = False,
    ) -> None:
        self.typed = typed
        self.columns = columns
        self.views = ["scores"]
        """Names that SQL can read from."""
        self._database = Database(
            limits=limits,
            autoinstall_known_extensions=False,
            autoload_known_extensions=False,
            python_enable_replacements=False,  # or SQL could read Python's variables
        )
        self.connection = self._database.connection
        self._files = PartFiles({}, self._database.spill, asked_once=asked_once)
        self.connection.register_filesystem(self._files)
        self.connection.execute("SET TimeZone = 'UTC'")
        # Otherwise every query would read the parts' footers again; they take 25 KB for each part.
        self.connection.execute(f"SET parquet_metadata_cache = {not asked_once}")
        with self._translated():
            source = self._source("", parts)
            self._execute(f"CREATE VIEW parts AS SELECT *, filename FROM {source}")
            self._execute(f"CREATE VIEW scores AS SELECT {self._names} FROM parts")
            if regions:
                found = ", ".join(map(identifier, REGIONS))
                source = self._source("", regions)
                self._execute(f"CREATE VIEW regions AS SELECT {found} FROM {source}")
                self.views.append("regions")
        self.connection.execute(f"SET allowed_directories = [{quoted(PartFiles.uri(''))}]")
        self.connection.execute("SET enable_external_access = false")
        self.connection.execute("SET lock_configuration = true")

    def add_name(self, view: str) -> None:
        """Add another name for the view `scores`."""
        self._execute(f"CREATE VIEW {identifier(view)} AS SELECT * FROM scores")

    def add_table(self, view: str, parts: Mapping[str, PartFile]) -> None:
        """Add a view over the parts of another score table."""
        with self._translated():
            source = self._source(f"{view}/", parts)
            self._execute(f"CREATE VIEW {identifier(view)} AS SELECT {self._names} FROM {source}")
        self.views.append(view)

    def add_file(self, view: str, typed: str) -> None:
        """Add a view over a CSV, JSON or Parquet file, local or on S3.

        Raises ConfigError for another kind of file or one that cannot be read.
        """
        uri = storage.absolute(typed)
        reader = _READERS.get(PurePosixPath(uri).suffix.lower())
        size = storage.size_of(uri)
        if reader is None or size is None:
            wrong = "does not exist" if size is None else "is not a table"
            raise ConfigError(f"--with {typed} {wrong}: give a {', '.join(_READERS)} file")
        name = f"with/{view}/{PurePosixPath(uri).name}"
        self._files.parts[name] = PartFile(uri, size, checked=False)
        # JSON is read once: a view over it, by way of Python's files, makes DuckDB 2.0 wait in each
        # statement, for half a minute on a busy machine.
        kind = "TABLE" if reader == "read_json" else "VIEW"
        try:
            self._execute(
                f"CREATE {kind} {identifier(view)} AS "
                f"SELECT * FROM {reader}({quoted(PartFiles.uri(name))})"
            )
        except duckdb.Error as error:
            reason = self._files.failure or shortened(str(error).strip().split("\n")[0], 200)
            raise ConfigError(f"--with {typed} cannot be read: {reason}") from None
        self.views.append(view)

    def add_rows(self, view: str, rows: pa.Table) -> None:
        """Add a view over rows in memory."""
        self.connection.register(view, rows)
        self.views.append(view)

    def _source(self, prefix: str, parts: Mapping[str, PartFile]) -> str:
        """Add the parts of a table to the session's files and return SQL that reads them."""
        self._files.parts.update({f"{prefix}{part}": file for part, file in parts.items()})
        listed = ", ".join(quoted(PartFiles.uri(f"{prefix}{part}")) for part in parts)
        return f"read_parquet([{listed}], hive_partitioning = true, hive_types_autocast = false)"

    @property
    def _names(self) -> str:
        return ", ".join(map(identifier, self.columns))

    def _execute(self, sql: str) -> None:
        self._database.run(lambda: self.connection.execute(sql))

    def query(self, sql: str, *parameters: Any) -> pa.Table:
        """The result of ganad's own SQL, in memory; parameters are $1, $2 …"""
        schema, batches = self.stream(sql, *parameters)
        return pa.Table.from_batches(list(batches), schema)

    def stream(
        self,
        sql: str,
        *parameters: Any,
        shown: str | None = None,
        batch_rows: int = BATCH_ROWS,
        into: Literal["python", "arrow"] | None = None,
    ) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """The result of SQL, batch by batch.

        shown: the user's SQL as error messages show it; errors are then QueryError. into: the
        consumer of the rows; types that it cannot hold become text (see ganad.scores.values).
        """
        with self._translated(shown):
            if shown is not None:
                _check_reads(self.connection.extract_statements(sql), shown)

            def begin() -> pa.RecordBatchReader:
                relation = self.connection.sql(sql, params=list(parameters))
                if into is not None:
                    relation = exact(relation, for_arrow=into == "arrow")
                return relation.to_arrow_reader(batch_rows)

            reader = self._database.run(begin)
        return reader.schema, self._batches(reader, shown)

    def _batches(self, reader: pa.RecordBatchReader, shown: str | None) -> Iterator[pa.RecordBatch]:
        try:
            while True:
                with self._translated(shown):
                    batch = self._database.run(lambda: next(reader, None))
                if batch is None:
                    return
                yield batch
        finally:
            reader.close()

    def close(self) -> None:
        """Free the memory and the temporary folder."""
        self._database.close()

    @contextmanager
    def _translated(self, shown: str | None = None) -> Iterator[None]:
        """Translate errors of DuckDB, and of Arrow during streaming, into one sentence each."""
        try:
            yield
        except (duckdb.Error, OSError, pa.ArrowException) as error:
            if self._files.failure is not None:
                failure = self._files.failure
                raise out_of_reach(self.typed, failure) from failure
            part = self._damaged_part(error)
            if part is not None:
                raise damaged(self.typed, part) from None
            message = shortened(str(error).strip().split("\n")[0].rstrip(".!"), 200)
            if isinstance(error, duckdb.OutOfMemoryException):
                raise QueryError(
                    f"{self.typed if shown is None else shown}: needs more memory or disk than it "
                    f"may use ({message}): allow more with --memory and --spill, or ask for less"
                ) from None
            if shown is None:
                raise foreign(self.typed, message) from None
            if _NO_REGIONS in message:
                raise QueryError(
                    f"{shown}: {self.typed} has no regions: score with --regions into a fresh --out"
                ) from None
            one = len(self.views) == 1
            more = f"; regions has {', '.join(REGIONS)}" if "regions" in self.views else ""
            raise QueryError(
                f"{shown}: {message}; the {'view is' if one else 'views are'} "
                f"{', '.join(self.views)}, with the columns {', '.join(self.columns)}{more}"
            ) from None

    def _damaged_part(self, error: Exception) -> str | None:
        """The part that DuckDB could not read; None if the error has another cause."""
        if self._files.damaged is not None:
            return self._files.damaged
        named = _PART_IN_MESSAGE.search(str(error))
        if named is not None and named[1] in self._files.parts:
            return named[1]
        if isinstance(error, duckdb.Error) and type(error) is not duckdb.Error:
            return None
        # Some errors of damaged files have no specific class and name no file: try every file.
        parts = self._files.parts
        return next((part for part in parts if not _is_readable(parts[part].uri)), None)


def _is_readable(uri: str) -> bool:
    try:
        with storage.open_input(uri) as file:
            pq.read_table(file)
    except (pa.ArrowException, OSError, ValueError):
        return False
    return True


def _check_reads(statements: list[Any], shown: str) -> None:
    """Raise QueryError unless the SQL is a single statement that only reads."""
    if len(statements) != 1:
        raise QueryError(f"{shown} holds {len(statements)} statements: give one SELECT over scores")
    kind = statements[0].type.name
    # PIVOT without IN becomes several statements, the last of which returns rows.
    asks = kind == "MULTI" and "QUERY_RESULT" in [
        result.name for result in statements[0].expected_result_type
    ]
    if kind not in _READ and not asks:
        raise QueryError(
            f"{shown} is a {kind} statement, and a score table can only be read: "
            f"give one SELECT over scores"
        )


def view_names(paths: Sequence[str]) -> list[str]:
    """View names for tables and files: the last part of each path, made valid SQL without quotes;
    duplicates get a number."""
    names: list[str] = []
    for path in paths:
        last = PurePosixPath(path.rstrip("/"))
        text = last.stem if last.suffix.lower() in _READERS else last.name
        name = re.sub(r"\W", "_", text.lower()) or "table"
        name = f"t_{name}" if name[0].isdigit() else name
        fresh, number = name, 1
        while fresh in names or fresh in _TAKEN or (fresh == "scores" and names):
            number += 1
            fresh = f"{name}_{number}"
        names.append(fresh)
    return names


def shortened(text: str, limit: int) -> str:
    """The text on one line of at most `limit` characters."""
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
