"""The Parquet parts of a manifest: written in rows of a fixed number, read a few rows at a time."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ganad.archive.rows import SCHEMA, Row
from ganad.errors import ManifestError
from ganad.storage import files as storage
from ganad.storage.reasons import translated

ROWS_PER_PART = 65_536
ROWS_PER_GROUP = 4_096
_DIGESTED = ("image_id", "size", "label", "abnormal", "split")


@dataclass(frozen=True)
class Part:
    """One Parquet file."""

    uri: str
    num_rows: int


def part_name(number: int, token: str) -> str:
    """File name of a part; the token keeps it apart from those of another listing."""
    return f"part-{number:05d}{'-' if token else ''}{token}.parquet"


def num_rows(uri: str) -> int:
    """Rows of a Parquet file, from its footer. Raises ArchiveError."""
    with _damage_in_words(uri), translated(uri), storage.open_input(uri) as file:
        return int(pq.ParquetFile(file).metadata.num_rows)


def read_rows(uri: str, start: int, num: int) -> list[Row]:
    """Rows start..start+num of a Parquet file, reading only the row groups that hold them.
    Raises ArchiveError."""
    with _damage_in_words(uri), translated(uri), storage.open_input(uri) as file:
        parquet = pq.ParquetFile(file)
        groups: list[int] = []
        before = first = 0
        for group in range(parquet.num_row_groups):
            after = before + parquet.metadata.row_group(group).num_rows
            if before < start + num and after > start:
                first = before if not groups else first
                groups.append(group)
            before = after
        return list(parquet.read_row_groups(groups).slice(start - first, num).to_pylist())


def read_table(uri: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A whole Parquet file, or some of its columns. Raises ArchiveError."""
    with _damage_in_words(uri):
        return storage.read_table(uri, columns)


@contextmanager
def _damage_in_words(uri: str) -> Iterator[None]:
    try:
        yield
    except pa.ArrowInvalid as error:
        raise ManifestError(f"{uri}: is damaged; run ganad index again") from error


def batches_of(rows: Iterable[Row]) -> Iterator[pa.RecordBatch]:
    """Rows as batches of SCHEMA."""
    rows = iter(rows)
    while some := list(islice(rows, ROWS_PER_GROUP)):
        yield pa.RecordBatch.from_pylist(some, schema=SCHEMA)


class PartWriter:
    """Cuts batches into parts, writes them and counts what is in them.

    on_part is called with each part that was written; one that it was called with is not undone.
    """

    def __init__(
        self, folder: str, token: str, on_part: Callable[[Part], None] | None = None
    ) -> None:
        self.folder, self.token, self.on_part = folder, token, on_part
        self.parts: list[tuple[str, int]] = []
        self.num_images = self.num_normal = self.num_abnormal = 0
        self.labels: Counter[str] = Counter()
        self.digest = hashlib.blake2b(digest_size=8)
        self._num_kept = 0
        self._existed = storage.is_remote(folder) or Path(folder).exists()

    def keep(self, parts: Sequence[Part]) -> list[str]:
        """Begin with parts that are there already; returns their names."""
        self.parts = [(part.uri.rpartition("/")[2], part.num_rows) for part in parts]
        self._num_kept = len(parts)
        for part in parts:
            self.num_images += part.num_rows
            self._count(read_table(part.uri, _DIGESTED))
        return [name for name, _ in self.parts]

    def write(self, batches: Iterable[pa.RecordBatch]) -> None:
        """Write parts of ROWS_PER_PART rows, the last one of the rest."""
        waiting: list[pa.RecordBatch] = []
        room = ROWS_PER_PART
        for batch in batches:
            while len(batch) >= room:
                self._write_part([*waiting, batch.slice(0, room)])
                waiting, batch, room = [], batch.slice(room), ROWS_PER_PART
            if len(batch):
                waiting.append(batch)
                room -= len(batch)
        if waiting:
            self._write_part(waiting)

    def _write_part(self, batches: list[pa.RecordBatch]) -> None:
        table = pa.Table.from_batches(batches, SCHEMA)
        name = part_name(len(self.parts), self.token)
        uri = storage.join(self.folder, name)
        storage.write_table(uri, table, row_group_size=ROWS_PER_GROUP)
        self.parts.append((name, len(table)))
        self.num_images += len(table)
        self._count(table)
        if self.on_part is not None:
            self._num_kept = len(self.parts)
            self.on_part(Part(uri, len(table)))

    def _count(self, table: pa.Table) -> None:
        facts = [table[name].to_pylist() for name in _DIGESTED]
        self.digest.update("".join(f"{row!r}\n" for row in zip(*facts, strict=True)).encode())
        self.labels.update(label for label in table["label"].to_pylist() if label is not None)
        truth = Counter(table["abnormal"].to_pylist())
        self.num_normal += truth[False]
        self.num_abnormal += truth[True]

    def undo(self) -> None:
        """Remove the parts written and not announced, and the folder if it was not there before."""
        for name, _ in self.parts[self._num_kept :]:
            storage.remove(storage.join(self.folder, name))
        if not self._existed:
            with suppress(OSError):
                Path(self.folder).rmdir()
