"""Images inside Parquet files: one column holds the bytes of a file in each row.

The column is a binary one, or a struct with a binary field `bytes`, as Hugging Face datasets write
them. Rows are listed without their bytes, and read a few at a time, row group by row group: a file
is never held whole, nor is a row group, unless its writer made it one page.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ganad.errors import ArchiveError
from ganad.storage import files as storage
from ganad.storage.reasons import translated

IMAGE_COLUMNS = ("image", "bytes", "img", "picture", "jpg", "jpeg", "png", "data", "content")
"""Looked for in this order; a file with one binary column may call it anything."""
ID_COLUMNS = ("image_id", "id", "name", "path", "file_name", "filename", "file", "uri", "key")
LABEL_COLUMNS = ("label", "class", "category")
_LISTED_ROWS = 8192
_READ_ROWS = 16
_BUFFER = 2**20
LARGE_GROUP = 2**28
"""Bytes of a row group from which on the user is told how to write smaller ones."""


class Cell(NamedTuple):
    """row: its number in the file. name: from a column of names, else the number."""

    row: int
    name: str
    label: str | None


def is_parquet(name: str) -> bool:
    """Whether a name ends in .parquet, in any case."""
    return name.lower().endswith(".parquet")


@dataclass(frozen=True)
class ImageFile:
    """A Parquet file of images, from its footer."""

    uri: str
    column: str
    """Dotted: of a struct, its field `bytes`."""
    names: str | None
    labels: str | None
    classes: tuple[str, ...]
    """What the numbers of the label column mean, where the file says so."""
    largest_group: int
    """Bytes of the images in the largest row group."""

    def cells(self) -> Iterator[Cell]:
        """Every row without its bytes, in order. Raises ArchiveError."""
        wanted = [column for column in (self.names, self.labels) if column]
        with _opened(self.uri) as file:
            if not wanted:
                yield from (Cell(row, str(row), None) for row in range(file.metadata.num_rows))
                return
            row = 0
            for batch in file.iter_batches(_LISTED_ROWS, columns=wanted):
                names = _values(batch, self.names)
                labels = _values(batch, self.labels)
                for name, label in zip(names, labels, strict=True):
                    shown = str(row) if name in (None, "") else str(name)
                    yield Cell(row, shown, self._label(label))
                    row += 1

    def _label(self, value: Any) -> str | None:
        if value is None:
            return None
        if self.classes and isinstance(value, int) and 0 <= value < len(self.classes):
            return self.classes[value]
        return str(value)


def open_images(uri: str) -> ImageFile | None:
    """What a Parquet file holds of images; None if it has no column of them. Raises ArchiveError
    for a file that is damaged, or that has several such columns under names that do not tell."""
    with _opened(uri) as file:
        schema, metadata = file.schema_arrow, file.metadata
        found = _image_columns(schema)
        if not found:
            return None
        chosen = next((name for name in IMAGE_COLUMNS if name in found), None)
        if chosen is None and len(found) > 1:
            raise ArchiveError(
                f"{uri}: has several columns of bytes ({', '.join(found)}); name the one that "
                f"holds the images {IMAGE_COLUMNS[0]}"
            )
        chosen = chosen or next(iter(found))
        leaf = metadata.schema.names  # leaves in order; found again by their dotted path
        paths = [metadata.schema.column(number).path for number in range(len(leaf))]
        number = paths.index(found[chosen])
        groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
        return ImageFile(
            uri,
            found[chosen],
            _name_column(schema, chosen),
            _label_column(schema),
            _classes(schema),
            max((group.column(number).total_compressed_size for group in groups), default=0),
        )


def read_cells(uri: str, column: str, rows: Sequence[int]) -> Iterator[tuple[int, bytes | None]]:
    """The bytes in these rows, with their row, in the file's order; None for a null.

    Reads row groups that hold such rows, a few rows at a time. A row that the file has not any more
    is left out. Raises what the filesystem raises, and ArrowException for damaged data.
    """
    wanted = np.unique(np.asarray(rows, np.int64))
    with storage.open_input(uri) as source:
        file = pq.ParquetFile(source, buffer_size=_BUFFER, pre_buffer=False)
        begins = np.cumsum(
            [0] + [file.metadata.row_group(g).num_rows for g in range(file.metadata.num_row_groups)]
        )
        wanted = wanted[wanted < begins[-1]]
        groups = np.searchsorted(begins, wanted, side="right") - 1
        for group, some in groupby(zip(groups.tolist(), wanted.tolist(), strict=True), _first):
            left = [row - int(begins[group]) for _, row in some]
            yield from (
                (row + int(begins[group]), data)
                for row, data in _in_group(file, group, column, left)
            )


def _first(pair: tuple[int, int]) -> int:
    return pair[0]


def _in_group(
    file: pq.ParquetFile, group: int, column: str, wanted: list[int]
) -> Iterator[tuple[int, bytes | None]]:
    """Rows counted from the beginning of the group, ascending."""
    start, position = 0, 0
    for batch in file.iter_batches(_READ_ROWS, row_groups=[group], columns=[column]):
        values = _array(batch, column)
        while position < len(wanted) and wanted[position] < start + len(batch):
            yield wanted[position], values[wanted[position] - start].as_py()
            position += 1
        if position == len(wanted):
            return  # what follows in the group need not be read
        start += len(batch)


@contextmanager
def _opened(uri: str) -> Iterator[pq.ParquetFile]:
    with translated(uri), storage.open_input(uri) as source:
        try:
            yield pq.ParquetFile(source, buffer_size=_BUFFER, pre_buffer=False)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise ArchiveError(
                f"{uri}: is damaged or no Parquet file; make the file again"
            ) from error
        except OSError as error:  # pages that do not decompress, without a number
            if error.errno is not None:
                raise
            raise ArchiveError(f"{uri}: is damaged; make the file again") from error


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
    )


def _image_columns(schema: pa.Schema) -> dict[str, str]:
    """Name of each column that can hold images -> dotted path of its bytes."""
    found = {}
    for column in schema:
        if _is_bytes(column.type):
            found[column.name] = column.name
        elif pa.types.is_struct(column.type):
            fields = {field.name: field.type for field in column.type}
            if "bytes" in fields and _is_bytes(fields["bytes"]):
                found[column.name] = f"{column.name}.bytes"
    return found


def _name_column(schema: pa.Schema, image: str) -> str | None:
    kinds = {column.name: column.type for column in schema}
    for name in ID_COLUMNS:
        if name in kinds and name != image and (_is_text(kinds[name]) or _is_int(kinds[name])):
            return name
    if pa.types.is_struct(kinds[image]):
        fields = {field.name: field.type for field in kinds[image]}
        if "path" in fields and _is_text(fields["path"]):
            return f"{image}.path"
    return None


def _label_column(schema: pa.Schema) -> str | None:
    kinds = {column.name: column.type for column in schema}
    usable = (name for name in LABEL_COLUMNS if name in kinds)
    return next((name for name in usable if _is_text(kinds[name]) or _is_int(kinds[name])), None)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_int(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind))


def _classes(schema: pa.Schema) -> tuple[str, ...]:
    """The names of a Hugging Face ClassLabel; () where there is none."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        column = next(name for name in LABEL_COLUMNS if name in features)
        return tuple(map(str, features[column]["names"]))
    except (KeyError, TypeError, ValueError, StopIteration):
        return ()


def _values(batch: pa.RecordBatch, column: str | None) -> list[Any]:
    return [None] * len(batch) if column is None else list(_array(batch, column).to_pylist())


def _array(batch: pa.RecordBatch, column: str) -> pa.Array:
    """A column by its dotted path; columns themselves may have dots in their names."""
    if column in batch.schema.names:
        return batch.column(column)
    name, _, field = column.rpartition(".")
    return pc.struct_field(batch.column(name), field)
