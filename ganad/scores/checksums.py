"""Writes and reads score files with checksums in their own Parquet footer.

Parquet readers do not compare checksums (DuckDB ignores them, pyarrow does not by default), so a
byte that a disk or a network changed would silently change a score. Here every block of BLOCK bytes
has a checksum, and so has the footer that stores them; a read verifies only the blocks it touches.
"""

from __future__ import annotations

import io
import secrets
import threading
from collections.abc import Mapping, Sequence
from typing import Any
from zlib import crc32

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ganad.errors import TableError
from ganad.storage import files as storage

BLOCK = 2**16
_BLOCKS, _FOOTER = b"ganad.blocks", b"ganad.footer"
_DIGITS = 8
_UNKNOWN = b"#" * _DIGITS
"""Placeholder for the footer's own checksum while that is computed."""
_MARK = 16
"""Length of the random mark in front of the footer's checksum, by which the reader finds it."""
_END = 8
"""Bytes after the footer: its length and the magic PAR1."""
_AT_ONCE = 2**23
_TAIL = 2**15
"""Bytes read from the end of a file first; most footers fit."""


class Damaged(TableError):
    """A score file differs from what was written."""


def to_parquet(
    table: pa.Table,
    metadata: Mapping[str, str] | None = None,
    *,
    order: pa.Array | None = None,
    row_group_size: int | None = None,
) -> bytes:
    """Encode a table as a Parquet file with checksums.

    metadata: key-value pairs for the footer. order: row indices in the order to write them.
    """
    plain = [field.name for field in table.schema if pa.types.is_floating(field.type)]
    coded = [name for name in table.schema.names if name not in plain]
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, table.schema, compression="zstd", use_dictionary=coded) as writer:
        if order is None:
            writer.write_table(table, row_group_size)
        else:  # one group at a time: a sorted copy of the whole table may not fit in memory
            size = row_group_size or len(order)
            for start in range(0, len(order), size):
                writer.write_table(table.take(order.slice(start, size)), size)
        blocks = b"".join(_checksums(sink.getvalue()))
        pairs: dict[Any, Any] = {**(metadata or {}), _BLOCKS: blocks}
        # Random, so that no column name or note in the footer contains it by chance.
        mark = secrets.token_hex(_MARK // 2).encode()
        writer.add_key_value_metadata({**pairs, _FOOTER: mark + _UNKNOWN})
    data = sink.getvalue()
    footer = _footer(data)
    return data[: -len(footer)] + _with_own(footer, mark, _checksum(footer))


def _with_own(footer: bytes, mark: bytes, checksum: bytes) -> bytes:
    """The footer with this checksum after the mark."""
    place = footer.index(mark) + len(mark)
    return footer[:place] + checksum + footer[place + len(checksum) :]


def _footer(data: bytes) -> bytes:
    """The footer and the eight bytes after it."""
    return data[-_END - int.from_bytes(data[-_END:-4], "little") :]


def _checksums(data: bytes) -> list[bytes]:
    return [_checksum(data[start : start + BLOCK]) for start in range(0, len(data), BLOCK)]


def _checksum(data: bytes) -> bytes:
    return b"%08x" % crc32(data)


class CheckedFile:
    """A score file whose reads are checked; threads may share it.

    Files from versions without checksums are read unchecked. size: bytes of the file.
    """

    def __init__(self, uri: str, size: int) -> None:
        self.uri, self.size = uri, size
        self._lock = threading.Lock()
        self._footer: bytes | None = None
        self._blocks: list[bytes] | None = None

    def read(self, offset: int, size: int) -> bytes:
        """Read `size` bytes, or fewer at the end of the file. Raises Damaged, and ArchiveError."""
        footer = self._open()
        start = self.size - len(footer)
        end = min(offset + size, self.size)
        behind = footer[max(0, offset - start) : max(0, end - start)]
        if offset >= start:
            return behind
        end = min(end, start)
        if self._blocks is None:
            return self._bytes(offset, end) + behind
        first, last = offset // BLOCK, -(-end // BLOCK)
        data = self._bytes(first * BLOCK, min(last * BLOCK, start))
        if _checksums(data) != self._blocks[first:last]:
            raise Damaged(f"{self.uri}: a checksum differs")
        return data[offset - first * BLOCK : end - first * BLOCK] + behind

    def table(
        self, columns: Sequence[str] | None = None, filters: pc.Expression | None = None
    ) -> pa.Table:
        """Read the rows, optionally some columns and rows only. Raises Damaged, and
        ArchiveError."""
        data = io.BytesIO(self.read(0, self.size))
        try:
            return pq.read_table(data, columns=columns and list(columns), filters=filters)
        except (pa.ArrowException, OSError, ValueError) as error:  # a file without checksums
            raise Damaged(f"{self.uri}: {error}") from None

    def parquet(self) -> pq.ParquetFile:
        """The open file, which reads what it is asked for. Raises Damaged, and ArchiveError, also
        when it is read."""
        self._open()
        try:
            return pq.ParquetFile(pa.PythonFile(_Stream(self), mode="r"))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise Damaged(f"{self.uri}: {error}") from None

    def check(self) -> None:
        """Read the whole file in chunks. Raises Damaged, and ArchiveError."""
        self._open()
        if self._blocks is None:
            self.table()
        for start in range(0, self.size, _AT_ONCE):
            self.read(start, _AT_ONCE)

    @property
    def metadata(self) -> dict[bytes, bytes]:
        """The footer's key-value pairs. Raises Damaged, and ArchiveError."""
        return _metadata(self._open(), self.uri)

    def _open(self) -> bytes:
        """The verified footer."""
        with self._lock:
            if self._footer is None:
                footer = self._read_footer()
                self._blocks = _blocks_of(footer, self.size, self.uri)
                self._footer = footer
            return self._footer

    def _read_footer(self) -> bytes:
        tail = self._bytes(max(0, self.size - _TAIL), self.size)
        if len(tail) < _END or tail[-4:] != b"PAR1":
            raise Damaged(f"{self.uri}: it is not a complete Parquet file")
        length = int.from_bytes(tail[-_END:-4], "little") + _END
        if length > self.size:
            raise Damaged(f"{self.uri}: it is not a complete Parquet file")
        return tail[-length:] if length <= len(tail) else self._bytes(self.size - length, self.size)

    def _bytes(self, start: int, end: int) -> bytes:
        data = storage.read_bytes(self.uri, start, end - start)
        if len(data) != end - start:
            raise Damaged(f"{self.uri}: it is shorter than it was")
        return data


class _Stream(io.RawIOBase):
    """A file as pyarrow reads one."""

    def __init__(self, file: CheckedFile) -> None:
        self._file, self._place = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        starts = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._file.size}
        self._place = starts[whence] + offset
        return self._place

    def tell(self) -> int:
        return self._place

    def read(self, size: int = -1) -> bytes:
        most = self._file.size - self._place
        data = self._file.read(self._place, most if size < 0 else min(size, most))
        self._place += len(data)
        return data


def _blocks_of(footer: bytes, size: int, uri: str) -> list[bytes] | None:
    """The blocks' checksums, or None if the file has none."""
    metadata = _metadata(footer, uri)
    if _FOOTER not in footer and _BLOCKS not in footer:
        return None
    own, text = metadata.get(_FOOTER, b""), metadata.get(_BLOCKS, b"")
    mark, checksum = own[:_MARK], own[_MARK:]
    if len(own) != _MARK + _DIGITS or footer.count(mark) != 1:
        raise Damaged(f"{uri}: the checksum of its footer differs")
    if _checksum(_with_own(footer, mark, _UNKNOWN)) != checksum:
        raise Damaged(f"{uri}: the checksum of its footer differs")
    blocks = [text[i : i + _DIGITS] for i in range(0, len(text), _DIGITS)]
    if len(blocks) != -(-(size - len(footer)) // BLOCK):
        raise Damaged(f"{uri}: its length has changed since it was written")
    return blocks


def _metadata(footer: bytes, uri: str) -> dict[bytes, bytes]:
    try:
        return dict(pq.read_metadata(io.BytesIO(footer)).metadata or {})
    except (pa.ArrowException, OSError, ValueError) as error:
        raise Damaged(f"{uri}: {error}") from None
