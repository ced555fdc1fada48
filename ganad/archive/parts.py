"""Writes and reads the Parquet parts of a manifest.

The name of a part contains a digest of its bytes, which is verified on reading, so that damage is
an error, never a wrong row.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ganad.archive.rows import SCHEMA, Row
from ganad.errors import ManifestError
from ganad.storage import files as storage
from ganad.storage.reasons import translated

ROWS_PER_PART = 65_536
ROWS_PER_GROUP = 4_096
PART = re.compile(r"part-(\d{5,})(?:-([0-9a-f]{8}))?(?:-([0-9a-f]{16}))?\.parquet")
"""Name of a part: its number, the token of its listing, the digest of its bytes. Parts of earlier
versions have no digest."""
_PLAIN = r"^[0-9A-Za-z_. -]*$"
"""Text that Python shows between single quotes as it is."""
_DIGESTED = ("image_id", "size", "label", "abnormal", "split")


@dataclass(frozen=True)
class Part:
    """One Parquet file."""

    uri: str
    num_rows: int


def part_name(number: int, token: str, digest: str) -> str:
    """File name of a part; the token distinguishes it from parts of another listing."""
    return "-".join(filter(None, (f"part-{number:05d}", token, digest))) + ".parquet"


def num_rows(uri: str) -> int:
    """Number of rows of a part. Raises ArchiveError."""
    with _opened(uri) as parquet:
        return int(parquet.metadata.num_rows)


def read_rows(uri: str, start: int, num: int) -> list[Row]:
    """Read rows start..start+num of a part; decodes only the row groups that hold them. Raises
    ArchiveError."""
    with _opened(uri) as parquet:
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
    """Read a whole part, or some columns. Columns that an old part lacks are null. Raises
    ArchiveError."""
    wanted = SCHEMA.names if columns is None else list(columns)
    with _opened(uri) as parquet:
        table = parquet.read([name for name in wanted if name in parquet.schema_arrow.names])
        for name in wanted:
            if name not in table.column_names:
                kind = SCHEMA.field(name).type
                table = table.append_column(name, pa.nulls(len(table), kind))
        return table.select(wanted)


@contextmanager
def _opened(uri: str) -> Iterator[pq.ParquetFile]:
    match = PART.fullmatch(uri.rpartition("/")[2])
    digest = match[3] if match else None
    try:
        if digest is None:
            with translated(uri), storage.open_input(uri) as file:
                yield pq.ParquetFile(file)
        else:
            yield pq.ParquetFile(pa.BufferReader(_verified(uri, digest)))
    except (pa.ArrowException, ValueError, KeyError) as error:
        raise ManifestError(f"{uri}: is damaged; run ganad index again") from error


# A worker reads the row groups of a part one after another.
@lru_cache(maxsize=2)
def _verified(uri: str, digest: str) -> pa.Buffer:
    """The verified bytes of a part."""
    data = storage.read_bytes(uri)
    if _digest_of(data) != digest:
        raise ManifestError(f"{uri}: is damaged; run ganad index again")
    return pa.py_buffer(data)


def _digest_of(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def batches_of(rows: Iterable[Row]) -> Iterator[pa.RecordBatch]:
    """Convert rows to batches with SCHEMA."""
    rows = iter(rows)
    while chunk := list(islice(rows, ROWS_PER_GROUP)):
        yield pa.RecordBatch.from_pylist(chunk, schema=SCHEMA)


class PartWriter:
    """Cuts batches into parts, writes them and counts their contents.

    on_part: called with each part written, which is not removed after that.
    """

    def __init__(
        self, folder: str, token: str, on_part: Callable[[Part], None] | None = None
    ) -> None:
        self.folder, self.token, self.on_part = folder, token, on_part
        self.parts: list[tuple[str, int]] = []
        """Name and number of rows of each part."""
        self.num_images = self.num_normal = self.num_abnormal = self.num_errors = 0
        self.labels: Counter[str] = Counter()
        self.digest = hashlib.blake2b(digest_size=8)
        self._num_kept = 0
        self._existed = storage.exists(folder)

    def keep(self, parts: Sequence[Part]) -> None:
        """Start with parts that exist already."""
        self.parts = [(part.uri.rpartition("/")[2], part.num_rows) for part in parts]
        self._num_kept = len(parts)
        for part in parts:
            self._count(read_table(part.uri, (*_DIGESTED, "error")))

    def write(self, batches: Iterable[pa.RecordBatch]) -> None:
        """Write parts of ROWS_PER_PART rows; the last one may be smaller."""
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
        data = storage.parquet_bytes(table, row_group_size=ROWS_PER_GROUP)
        name = part_name(len(self.parts), self.token, _digest_of(data))
        uri = storage.join(self.folder, name)
        storage.write_bytes(uri, data)
        self.parts.append((name, len(table)))
        self._count(table)
        if self.on_part is not None:
            self._num_kept = len(self.parts)
            self.on_part(Part(uri, len(table)))

    def _count(self, table: pa.Table) -> None:
        self.digest.update(_lines(table))
        self.labels.update(
            {one["values"]: one["counts"] for one in table["label"].value_counts().to_pylist()}
        )
        del self.labels[None]
        num_known = len(table) - table["abnormal"].null_count
        num_abnormal = pc.sum(table["abnormal"], min_count=0).as_py()
        self.num_images += len(table)
        self.num_normal += num_known - num_abnormal
        self.num_abnormal += num_abnormal
        self.num_errors += len(table) - table["error"].null_count

    def undo(self) -> None:
        """Remove the parts that were not announced, and the folder if it did not exist before."""
        for name, _ in self.parts[self._num_kept :]:
            storage.remove(storage.join(self.folder, name))
        if not self._existed:
            with suppress(OSError):
                Path(self.folder).rmdir()


def _lines(table: pa.Table) -> bytes:
    """A line for each row: what Python shows of the tuple of its facts, made column by column."""
    facts = [_shown(table[name].combine_chunks()) for name in _DIGESTED]
    lines = pc.binary_join_element_wise("(", pc.binary_join_element_wise(*facts, ", "), ")\n", "")
    together = pa.ListArray.from_arrays([0, len(lines)], lines)
    return pc.binary_join(together, "")[0].as_py().encode()


def _shown(values: pa.Array) -> pa.Array:
    """What Python shows of each value."""
    if pa.types.is_integer(values.type):
        texts = values.cast(pa.string())
    elif (
        pa.types.is_string(values.type) and pc.all(pc.match_substring_regex(values, _PLAIN)).as_py()
    ):
        texts = pc.binary_join_element_wise("'", values, "'", "")
    else:
        coded = values.dictionary_encode()
        shown = pa.array([repr(value) for value in coded.dictionary.to_pylist()], pa.string())
        texts = shown.take(coded.indices)
    return texts.fill_null("None")
