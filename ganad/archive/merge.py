"""Merges the rows of several sources, shards and a CSV of labels in an on-disk DuckDB.

It is used if single rows do not suffice: to find images that were listed twice, to join a CSV of
labels, and to know all labels and folders of a source. The database is in a folder that the caller
removes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from ganad.archive.labels import CsvRow, Naming
from ganad.archive.layout import labels_of_folders
from ganad.archive.parts import Part, read_table
from ganad.archive.rows import SCHEMA, Row
from ganad.errors import ArchiveError, ConfigError
from ganad.storage.database import Database, Limits

_BATCH = 16_384
_COLUMNS = ", ".join(f'"{name}"' for name in SCHEMA.names)
_CSV_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("path", pa.string()),
        ("line", pa.int64()),
        ("label", pa.string()),
        ("abnormal", pa.bool_()),
        ("mask", pa.string()),
        ("split", pa.string()),
    ]
)
_STAGED_SCHEMA = pa.schema(
    [*SCHEMA, ("folder", pa.string()), ("source", pa.int32()), ("position", pa.int64())]
)
# A failed write aborts the transaction, and a failed rollback invalidates the database.
_NO_ROOM = (
    duckdb.IOException,
    duckdb.OutOfMemoryException,
    duckdb.TransactionException,
    duckdb.FatalException,
)
_PLACE = "s.uri || coalesce('#' || s.member, '')"  # the full name of an image in a CSV


@contextmanager
def open_merge(folder: Path, out: str) -> Iterator[Merge]:
    """Open a Merge in this folder. Raises ArchiveError if the disk is full. out: the folder of the
    manifest, for the message."""
    try:
        merge = Merge(folder)
        try:
            yield merge
        finally:
            merge.close()
    except _NO_ROOM as error:
        raise ArchiveError(
            f"{out}: there is no room left for the rows on this disk; make room there, or write to "
            f"another disk"
        ) from error


class Merge:
    """Takes rows and returns each image once, in the order in which they were added.

    folder: for the database. Create it with open_merge().
    """

    def __init__(self, folder: Path) -> None:
        self.num_repeated = 0
        """Number of rows that repeated an image."""
        self.notes: list[str] = []
        self._leave_out = False
        self._has_csv = False
        self._num_added = 0
        self._siblings: dict[int, set[str]] = {}
        """Source -> labels of the rows that settled() has returned."""
        self._rooted: set[int] = set()
        """Sources with shard members outside any folder."""
        self._database = Database(
            str(folder / "merge.duckdb"), Limits(memory=10**9), spill_to=str(folder), threads=2
        ).connection
        self._create("staged", _STAGED_SCHEMA)

    def close(self) -> None:
        """Close the database, so that its files can be removed."""
        with suppress(duckdb.Error):  # the disk may be full
            self._database.close()

    def add(self, rows: Iterable[tuple[int, Row]]) -> None:
        """Add rows, each with the number of its source."""
        self._insert("staged", map(self._numbered, rows), _STAGED_SCHEMA)

    def _numbered(self, pair: tuple[int, Row]) -> dict[str, Any]:
        source, row = pair
        self._num_added += 1
        return {**row, "source": source, "position": self._num_added}

    def settled(self, rows: Iterable[tuple[int, Row]], by_user: bool) -> Iterator[Row]:
        """Yield the rows that do not depend on others, and add the rest: shard members in folders,
        and those with labels, because all labels together decide which are abnormal.

        by_user: True if the user named the normal or abnormal labels.
        """
        rest: list[tuple[int, Row]] = []
        for source, row in rows:
            label, folder = row["label"], row.get("folder")
            known = label is None or row["abnormal"] is not None or by_user
            if not folder and (row["member"] is None or known):
                if label is not None:
                    self._siblings.setdefault(source, set()).add(label)
                if folder == "":
                    self._rooted.add(source)
                yield row
            else:
                rest.append((source, row))
                if len(rest) == _BATCH:
                    self.add(rest)
                    rest = []
        self.add(rest)

    def add_labels(self, uri: str, lines: Iterable[CsvRow]) -> None:
        """Use the labels of a CSV instead of those of the folders. Raises ConfigError if it
        contradicts itself, or names none of the images."""
        self._has_csv = True
        self._create("written", _CSV_SCHEMA)
        self._insert("written", (line._asdict() for line in lines), _CSV_SCHEMA)
        twice = self._one(
            "SELECT any_value(path), min(line), max(line) FROM written GROUP BY key HAVING "
            "count(DISTINCT row(label, abnormal, mask, split)) > 1 ORDER BY min(line) LIMIT 1"
        )
        if twice:
            raise ConfigError(
                f"{uri}: lines {twice[1]} and {twice[2]} disagree about {twice[0]}: keep one"
            )
        self._check_matches(uri)
        self._database.execute(
            "CREATE TABLE csv AS SELECT DISTINCT ON (key) * EXCLUDE (path, line) FROM written"
        )
        # The CSV applies to all sources, so all labels form one group: source 0.
        self._database.execute(f"""
            CREATE TABLE labelled AS SELECT s.* REPLACE (
                coalesce(full_.label, short.label) AS label,
                coalesce(full_.abnormal, short.abnormal) AS abnormal,
                coalesce(full_.mask, short.mask, s.mask) AS mask,
                coalesce(full_.split, short.split, s.split) AS split,
                0::INT AS source)
            FROM staged s
            LEFT JOIN csv short ON short.key = s.name
            LEFT JOIN csv full_ ON full_.key = {_PLACE}""")
        self._note_missing_lines(uri)
        self._database.execute("DROP TABLE staged; ALTER TABLE labelled RENAME TO staged")

    def _note_missing_lines(self, uri: str) -> None:
        """Report images that the CSV does not name, which therefore have no label."""
        bare = self._one(f"""
            SELECT count(DISTINCT image_id), min_by(name, position) FROM staged s
            WHERE NOT EXISTS (SELECT 1 FROM csv c WHERE c.key = s.name)
            AND NOT EXISTS (SELECT 1 FROM csv c WHERE c.key = {_PLACE})""")
        if bare[0]:
            self.notes.append(
                f"{uri}: has no line for {bare[0]:,} of the images, the first {bare[1]}; they have "
                f"no label, because a CSV replaces the labels of the folders"
            )

    def _check_matches(self, uri: str) -> None:
        """Report lines that name no image; raise ConfigError if no line does."""
        lost = self._one(f"""
            SELECT count(*), min_by(path, line) FROM written w
            WHERE NOT EXISTS (SELECT 1 FROM staged s WHERE s.name = w.key)
            AND NOT EXISTS (SELECT 1 FROM staged s WHERE {_PLACE} = w.key)""")
        num_lines = self._one("SELECT count(*) FROM written")[0]
        if num_lines == lost[0]:
            named = f"its first line names {lost[1]}" if num_lines else "it has no lines"
            example = self._one("SELECT min_by(name, position) FROM staged")[0]
            raise ConfigError(
                f"{uri}: names none of the images ({named}): write paths relative to the source, "
                f"such as {example}"
            )
        if lost[0]:
            self.notes.append(f"{uri}: {lost[0]:,} lines name no image, the first {lost[1]}")

    def _label_by_folders(self) -> None:
        """Choose the folder that is the label, given all folders of each source."""
        folders: dict[int, set[str]] = {source: {""} for source in self._rooted}
        for source, folder in self._all(
            "SELECT DISTINCT source, folder FROM staged WHERE folder IS NOT NULL"
        ):
            folders.setdefault(source, set()).add(folder)
        if not folders:
            return
        labels = [
            {"source": source, "folder": folder, "name": label}
            for source, names in folders.items()
            for folder, label in labels_of_folders(names).items()
        ]
        schema = pa.schema([("source", pa.int32()), ("folder", pa.string()), ("name", pa.string())])
        self._create("chosen", schema)
        self._insert("chosen", labels, schema)
        self._database.execute(
            "UPDATE staged SET label = c.name FROM chosen c "
            "WHERE staged.source = c.source AND staged.folder = c.folder"
        )

    def judge(self, naming: Naming) -> None:
        """Decide which labels are abnormal, if that is not known yet."""
        if not self._has_csv:
            self._label_by_folders()
        siblings = self._siblings
        for source, label in self._all(
            "SELECT DISTINCT source, label FROM staged WHERE label IS NOT NULL"
        ):
            siblings.setdefault(source, set()).add(label)
        verdicts = [
            {"source": source, "label": label, "verdict": naming.judge(label, None, labels)}
            for source, labels in siblings.items()
            for label in labels
        ]
        schema = pa.schema(
            [("source", pa.int32()), ("label", pa.string()), ("verdict", pa.bool_())]
        )
        self._create("verdicts", schema)
        self._insert("verdicts", verdicts, schema)

    def leave_out(self, parts: Sequence[Part]) -> None:
        """Leave out the images of these parts, which are listed already."""
        schema = pa.schema([SCHEMA.field(name) for name in ("image_id", "size", "offset")])
        self._create("known", schema)
        for part in parts:
            for batch in read_table(part.uri, schema.names).to_batches(_BATCH):
                self._database.register("batch", pa.Table.from_batches([batch]))
                self._database.execute("INSERT INTO known SELECT * FROM batch")
                self._database.unregister("batch")
        self._leave_out = True

    def _without_known(self, merged: str) -> str:
        """SQL for the new rows of `merged`; also reports known images that are gone or changed."""
        self._database.execute(f"CREATE TABLE merged AS {merged}")
        gone = self._one("SELECT count(*) FROM known ANTI JOIN staged USING (image_id)")[0]
        changed = self._one("""
            SELECT count(*), min_by(m.name, m.position) FROM merged m JOIN known k USING (image_id)
            WHERE m.size IS DISTINCT FROM k.size OR m."offset" IS DISTINCT FROM k."offset" """)
        if gone:
            self.notes.append(f"{gone:,} of the images listed before are gone; they stay listed")
        if changed[0]:
            self.notes.append(
                f"{changed[0]:,} of the images listed before have changed, the first "
                f"{changed[1]}; they stay as they were listed: index into another folder if they "
                f"are to be scored again"
            )
        return "SELECT * FROM merged ANTI JOIN known USING (image_id)"

    def batches(self, sources: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the merged rows with SCHEMA; call judge first. Raises ArchiveError if an image has
        two labels. sources: as typed, by number."""
        # For loose files the folder layout has decided already, unless a CSV replaced the labels.
        is_open = "true" if self._has_csv else "s.member IS NOT NULL"
        self._database.execute(f"""
            CREATE TABLE judged AS
            SELECT s.* REPLACE (
                coalesce(s.abnormal, CASE WHEN {is_open} THEN v.verdict END) AS abnormal)
            FROM staged s LEFT JOIN verdicts v USING (source, label);
            CREATE TABLE repeated AS
            SELECT image_id FROM judged GROUP BY image_id HAVING count(*) > 1""")
        self._check_conflicts(sources)
        rows = "SELECT count(*) FROM judged SEMI JOIN repeated USING (image_id)"
        self.num_repeated = self._one(rows)[0] - self._one("SELECT count(*) FROM repeated")[0]
        # If a tar holds two members of one name, the later one counts, as in tar itself.
        merged = f"""
            SELECT {_COLUMNS}, position FROM judged ANTI JOIN repeated USING (image_id)
            UNION ALL
            SELECT {_COLUMNS}, position FROM (
                SELECT j.* REPLACE (
                    max(label) OVER same AS label, bool_or(abnormal) OVER same AS abnormal,
                    max(mask) OVER same AS mask, max(split) OVER same AS split,
                    min(position) OVER same AS position),
                    row_number() OVER (
                        PARTITION BY image_id ORDER BY "offset" DESC NULLS LAST, position) AS rank
                FROM judged j SEMI JOIN repeated USING (image_id)
                WINDOW same AS (PARTITION BY image_id))
            WHERE rank = 1"""
        if self._leave_out:
            merged = self._without_known(merged)
        result = self._database.sql(f"SELECT {_COLUMNS} FROM ({merged}) ORDER BY position")
        for batch in result.to_arrow_reader(_BATCH):
            yield batch.cast(SCHEMA)

    def _check_conflicts(self, sources: Sequence[str]) -> None:
        conflict = self._one("""
            SELECT min_by(name, position), min_by(label, position), min_by(source, position),
                   max_by(label, position), max_by(source, position)
            FROM judged SEMI JOIN repeated USING (image_id) WHERE label IS NOT NULL
            GROUP BY image_id
            HAVING count(DISTINCT label) > 1 OR count(DISTINCT abnormal) > 1
            ORDER BY min(position) LIMIT 1""")
        if conflict:
            name, first, source, other, other_source = conflict
            raise ArchiveError(
                f"{sources[source]}: its image {name} is {first!r} here and {other!r} as part of "
                f"{sources[other_source]}; give only one of the two sources, or labels in a CSV"
            )

    def _create(self, table: str, schema: pa.Schema) -> None:
        self._database.register("example", schema.empty_table())
        self._database.execute(f"CREATE TABLE {table} AS SELECT * FROM example")
        self._database.unregister("example")

    def _insert(self, table: str, rows: Iterable[dict[str, Any]], schema: pa.Schema) -> None:
        rows = iter(rows)
        while chunk := list(islice(rows, _BATCH)):
            self._database.register("batch", pa.Table.from_pylist(chunk, schema=schema))
            self._database.execute(f"INSERT INTO {table} SELECT * FROM batch")
            self._database.unregister("batch")

    def _one(self, sql: str) -> Any:
        # Read the whole result: one that is half read blocks the connection.
        return next(iter(self._all(sql)), None)

    def _all(self, sql: str) -> list[tuple[Any, ...]]:
        return self._database.execute(sql).fetchall()
