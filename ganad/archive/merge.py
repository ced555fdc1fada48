"""Rows of several sources, tars and a CSV of labels put together in DuckDB, on disk.

Needed where one row alone does not tell: whether an image was listed twice, what a CSV says of it,
which labels its source has. The database lies in a folder that the caller removes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from ganad.archive.labels import CsvRow, Naming
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
_STAGED_SCHEMA = pa.schema([*SCHEMA, ("source", pa.int32()), ("position", pa.int64())])
_PLACE = "s.uri || coalesce('#' || s.member, '')"  # how a CSV may name an image in full


class Merge:
    """Takes all rows, then gives them back, each image once, in the order in which they came."""

    def __init__(self, folder: Path) -> None:
        self.num_repeated = 0
        """Rows that named an image which had been named before."""
        self.notes: list[str] = []
        self._leave_out = False
        self._num_added = 0
        # Of files the folders around them have told it.
        self._open = "s.member IS NOT NULL"
        self._siblings: dict[int, set[str]] = {}
        self._database = Database(
            str(folder / "merge.duckdb"), Limits(memory=10**9), spill_to=str(folder), threads=2
        ).connection
        self._create("staged", _STAGED_SCHEMA)

    def __enter__(self) -> Merge:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()  # or its files could not be removed

    def add(self, rows: Iterable[tuple[int, Row]]) -> None:
        """Take rows, each with the number of its source, behind those of before."""
        self._insert("staged", map(self._numbered, rows), _STAGED_SCHEMA)

    def _numbered(self, pair: tuple[int, Row]) -> dict[str, Any]:
        source, row = pair
        self._num_added += 1
        return {**row, "source": source, "position": self._num_added}

    def settled(self, rows: Iterable[tuple[int, Row]], by_user: bool) -> Iterator[Row]:
        """Gives back the rows that need no other ones, at once, and takes the rest: members of tars
        and Parquet files that have labels, of which all together tell what is abnormal.

        by_user: whether the user's word tells it.
        """
        rest: list[tuple[int, Row]] = []
        for source, row in rows:
            label = row["label"]
            if row["member"] is None or label is None or row["abnormal"] is not None or by_user:
                if label is not None:
                    self._siblings.setdefault(source, set()).add(label)
                yield row
            else:
                rest.append((source, row))
                if len(rest) == _BATCH:
                    self.add(rest)
                    rest = []
        self.add(rest)

    def add_labels(self, uri: str, lines: Iterable[CsvRow]) -> None:
        """Take the labels of a CSV instead of those of the folders. Raises ConfigError if it says
        two things of one image, or names no image that was added."""
        self._open = "true"
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
        # One group of labels, as the CSV speaks for all sources: hence source 0 for every row.
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
        self._database.execute("DROP TABLE staged; ALTER TABLE labelled RENAME TO staged")

    def _check_matches(self, uri: str) -> None:
        """Report lines that name no image; refuse a CSV of nothing else."""
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
            self.notes.append(f"{uri}: {lost[0]} lines name no image, the first {lost[1]}")

    def judge(self, naming: Naming) -> None:
        """Say which labels are abnormal where that is still open."""
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
        """Take parts that are listed already: their images are not given back."""
        schema = pa.schema([SCHEMA.field(name) for name in ("image_id", "size", "offset")])
        self._create("known", schema)
        for part in parts:
            for batch in read_table(part.uri, schema.names).to_batches(_BATCH):
                self._database.register("batch", pa.Table.from_batches([batch]))
                self._database.execute("INSERT INTO known SELECT * FROM batch")
                self._database.unregister("batch")
        self._leave_out = True

    def _without_known(self, merged: str) -> str:
        """The rows of merged that are new; notes what became of the others."""
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
        """The rows as SCHEMA has them, after judge. Raises ArchiveError if an image came with two
        labels. sources: as typed, by number."""
        self._database.execute(f"""
            CREATE TABLE judged AS
            SELECT s.* REPLACE (
                coalesce(s.abnormal, CASE WHEN {self._open} THEN v.verdict END) AS abnormal)
            FROM staged s LEFT JOIN verdicts v USING (source, label);
            CREATE TABLE repeated AS
            SELECT image_id FROM judged GROUP BY image_id HAVING count(*) > 1""")
        self._check_conflicts(sources)
        rows = "SELECT count(*) FROM judged SEMI JOIN repeated USING (image_id)"
        self.num_repeated = self._one(rows)[0] - self._one("SELECT count(*) FROM repeated")[0]
        # A tar may hold two members of one name: the later one is the valid one, as for tar.
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
        found = self._one("""
            SELECT min_by(name, position), min_by(label, position), min_by(source, position),
                   max_by(label, position), max_by(source, position)
            FROM judged SEMI JOIN repeated USING (image_id) WHERE label IS NOT NULL
            GROUP BY image_id
            HAVING count(DISTINCT label) > 1 OR count(DISTINCT abnormal) > 1
            ORDER BY min(position) LIMIT 1""")
        if found:
            name, first, source, other, other_source = found
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
        while some := list(islice(rows, _BATCH)):
            self._database.register("batch", pa.Table.from_pylist(some, schema=schema))
            self._database.execute(f"INSERT INTO {table} SELECT * FROM batch")
            self._database.unregister("batch")

    def _one(self, sql: str) -> Any:
        # All of the result: one that is half read keeps the connection from other work.
        return next(iter(self._all(sql)), None)

    def _all(self, sql: str) -> list[tuple[Any, ...]]:
        return self._database.execute(sql).fetchall()
