"""Lists and reads images inside Parquet files, where one column holds the bytes of image files.

The column is binary, or a struct with a binary field `bytes`, as in Hugging Face data sets. Rows
are listed without their bytes and read a few at a time. Neither a file nor a row group is ever held
in memory whole, unless a row group is a single page. The number of rows read at a time depends on
how large they can be, because a dictionary of a few kilobytes can expand to many large cells.
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

from ganad.archive.rows import label_of
from ganad.errors import ArchiveError
from ganad.storage import files as storage
from ganad.storage.reasons import translated

IMAGE_COLUMNS = ("image", "bytes", "img", "picture", "jpg", "jpeg", "png", "data", "content")
"""Searched in this order. If a file has only one binary column, its name does not matter."""
ID_COLUMNS = ("image_id", "id", "name", "path", "file_name", "filename", "file", "uri", "key")
LABEL_COLUMNS = ("label", "class", "category")
_LISTED_ROWS = 8192
_READ_ROWS = 16
_READ_BYTES = 2**28  # cells decoded at a time
_MOST_TEXT = 2**16  # bytes of the longest name or label
_BUFFER = 2**20
DAMAGE = (pa.ArrowException, ValueError)
"""Errors that pyarrow raises for damaged files; ValueError for names that are not UTF-8."""
LARGE_GROUP = 2**28
"""Larger row groups, in bytes, are reported to the user."""


class Cell(NamedTuple):
    """row: number in the file. name: from a column of names, else the row number as text."""

    row: int
    name: str
    label: str | None


def is_parquet(name: str) -> bool:
    """True if a name ends in .parquet, in any case."""
    return name.lower().endswith(".parquet")


@dataclass(frozen=True)
class ImageFile:
    """A Parquet file of images, as described by its footer."""

    uri: str
    column: str
    """Dotted path of the column of bytes; for a struct, of its field `bytes`."""
    names: str | None
    labels: str | None
    classes: tuple[str, ...]
    """Names for the numbers in the label column, if the file has them."""
    num_rows: int
    largest_group: int
    """Bytes of the images in the largest row group."""
    texts: tuple[str, ...] = ()
    """The columns of names and labels that hold text."""
    note: str | None = None
    """Note to the user about the labels."""

    def cells(self) -> Iterator[Cell]:
        """Yield every row without its bytes, in order. Raises ArchiveError."""
        wanted = [column for column in (self.names, self.labels) if column]
        # As dictionaries, so that the length of a text is checked before it is repeated per row.
        with _opened(self.uri, self.texts) as file:
            if not wanted:
                yield from (Cell(row, str(row), None) for row in range(file.metadata.num_rows))
                return
            row = 0
            # Group by group: batches across row groups cannot have dictionaries inside structs.
            for group in range(file.metadata.num_row_groups):
                for batch in file.iter_batches(_LISTED_ROWS, row_groups=[group], columns=wanted):
                    names = _values(self.uri, batch, self.names)
                    labels = _values(self.uri, batch, self.labels)
                    for name, label in zip(names, labels, strict=True):
                        shown = str(row) if name in (None, "") else str(name)
                        yield Cell(row, shown, self._label(label))
                        row += 1

    def _label(self, value: Any) -> str | None:
        if self.classes and isinstance(value, int):
            if value == -1:  # ClassLabel's value for a missing label
                return None
            if 0 <= value < len(self.classes):
                return label_of(self.classes[value])
        return label_of(value)


def open_images(uri: str) -> ImageFile | None:
    """Describe the images of a Parquet file; None if it has no binary column. Raises ArchiveError
    for a damaged file, and for several binary columns none of which is named in IMAGE_COLUMNS."""
    with _opened(uri) as file:
        schema, metadata = file.schema_arrow, file.metadata
        columns = _image_columns(schema)
        if not columns:
            return None
        chosen = next((name for name in IMAGE_COLUMNS if name in columns), None)
        if chosen is None and len(columns) > 1:
            raise ArchiveError(
                f"{uri}: has several columns of bytes ({', '.join(columns)}); name the one that "
                f"holds the images {IMAGE_COLUMNS[0]}"
            )
        chosen = chosen or next(iter(columns))
        names = _name_column(schema, chosen)
        labels, note = _label_column(schema)
        return ImageFile(
            uri,
            column=columns[chosen],
            names=names,
            labels=labels,
            classes=_classes(schema),
            num_rows=metadata.num_rows,
            largest_group=max(
                (_group_bytes(metadata, group) for group in range(metadata.num_row_groups)),
                default=0,
            ),
            texts=tuple(
                name for name in (names, labels) if name and _is_text(_type_of(schema, name))
            ),
            note=note and f"{uri}: {note}",
        )


def read_cells(uri: str, column: str, rows: Sequence[int]) -> Iterator[tuple[int, bytes | None]]:
    """Yield (row, bytes) for these rows, in the file's order; the bytes of a null are None.

    Reads only the row groups with such rows, a few rows at a time. Rows that the file does not have
    are left out. Raises the errors of the filesystem, and ArrowException for damaged data.
    """
    wanted = np.unique(np.asarray(rows, np.int64))
    with storage.open_input(uri) as source:
        file = pq.ParquetFile(source, buffer_size=_BUFFER, pre_buffer=False)
        begins = np.cumsum(
            [0] + [file.metadata.row_group(g).num_rows for g in range(file.metadata.num_row_groups)]
        )
        wanted = wanted[wanted < begins[-1]]
        groups = np.searchsorted(begins, wanted, side="right") - 1
        for group, pairs in groupby(zip(groups.tolist(), wanted.tolist(), strict=True), _first):
            left = [row - int(begins[group]) for _, row in pairs]
            yield from (
                (row + int(begins[group]), data)
                for row, data in _in_group(file, group, column, left)
            )


def _first(pair: tuple[int, int]) -> int:
    return pair[0]


def _in_group(
    file: pq.ParquetFile, group: int, column: str, wanted: list[int]
) -> Iterator[tuple[int, bytes | None]]:
    """Yield (row, bytes). wanted: rows relative to the start of the group, ascending."""
    start, position = 0, 0
    num = _rows_at_once(file, group)
    for batch in file.iter_batches(num, row_groups=[group], columns=[column]):
        values = _array(batch, column)
        while position < len(wanted) and wanted[position] < start + len(batch):
            yield wanted[position], values[wanted[position] - start].as_py()
            position += 1
        if position == len(wanted):
            return  # the rest of the group need not be read
        start += len(batch)


def _rows_at_once(file: pq.ParquetFile, group: int) -> int:
    """Number of rows that decode to at most about _READ_BYTES, even if each of them holds all bytes
    of the group, as with a dictionary of one value."""
    # Uses the size of the whole group: pyarrow aborts on damaged metadata of a single column.
    return max(1, min(_READ_ROWS, _READ_BYTES // max(1, _group_bytes(file.metadata, group))))


def _group_bytes(metadata: pq.FileMetaData, group: int) -> int:
    """Uncompressed bytes of a row group."""
    return int(metadata.row_group(group).total_byte_size)


@contextmanager
def _opened(uri: str, dictionaries: Sequence[str] = ()) -> Iterator[pq.ParquetFile]:
    with translated(uri), storage.open_input(uri) as source:
        try:
            yield pq.ParquetFile(
                source, buffer_size=_BUFFER, pre_buffer=False, read_dictionary=list(dictionaries)
            )
        except (*DAMAGE, IndexError, KeyError, OverflowError) as error:
            raise ArchiveError(
                f"{uri}: is damaged or not a Parquet file; make the file again"
            ) from error
        except OSError as error:
            if error.errno is not None:
                raise
            # Pages that cannot be decompressed raise an OSError without errno.
            raise ArchiveError(f"{uri}: is damaged; make the file again") from error


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
    )


def _image_columns(schema: pa.Schema) -> dict[str, str]:
    """Name of each column that can hold images -> dotted path of its bytes."""
    columns = {}
    for column in schema:
        if _is_bytes(column.type):
            columns[column.name] = column.name
        elif pa.types.is_struct(column.type):
            fields = {field.name: field.type for field in column.type}
            if "bytes" in fields and _is_bytes(fields["bytes"]):
                columns[column.name] = f"{column.name}.bytes"
    return columns


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


def _label_column(schema: pa.Schema) -> tuple[str | None, str | None]:
    """(column of labels, note on a column that cannot be used)."""
    kinds = {column.name: column.type for column in schema}
    note = None
    for name in LABEL_COLUMNS:
        if name not in kinds:
            continue
        kind = _value_type(kinds[name])
        is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
        if is_number or pa.types.is_boolean(kind) or _is_text(kind):
            return name, None
        if not pa.types.is_null(kind):
            note = note or (
                f"its column {name} is not used, because it holds {kind}; store labels as text or "
                f"whole numbers"
            )
    return None, note


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    kind = _value_type(kind)
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _type_of(schema: pa.Schema, column: str) -> pa.DataType:
    """The type of a column, by its dotted path."""
    if column in schema.names:
        return schema.field(column).type
    name, _, field = column.rpartition(".")
    return schema.field(name).type.field(field).type


def _is_int(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(_value_type(kind)))


def _classes(schema: pa.Schema) -> tuple[str, ...]:
    """Names of a Hugging Face ClassLabel; () if there is none."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        column = next(name for name in LABEL_COLUMNS if name in features)
        return tuple(map(str, features[column]["names"]))
    except (KeyError, TypeError, ValueError, StopIteration):
        return ()


def _values(uri: str, batch: pa.RecordBatch, column: str | None) -> list[Any]:
    """Values of a column of names or labels. Raises ArchiveError for texts that are too long."""
    if column is None:
        return [None] * len(batch)
    array = _array(batch, column)
    texts = array.dictionary if pa.types.is_dictionary(array.type) else array
    if _is_text(texts.type):
        longest = pc.max(pc.binary_length(texts)).as_py() or 0
        if longest > _MOST_TEXT:
            raise ArchiveError(
                f"{uri}: column {column} holds a text of {longest:,} bytes, which is neither a "
                f"name nor a label; rename the column"
            )
    return list(array.to_pylist())


def _array(batch: pa.RecordBatch, column: str) -> pa.Array:
    """A column by its dotted path; column names may contain dots themselves."""
    if column in batch.schema.names:
        return batch.column(column)
    name, _, field = column.rpartition(".")
    struct = batch.column(name)
    return struct.flatten()[struct.type.get_field_index(field)]
