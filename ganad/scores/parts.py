"""Reads and writes the rows of score files, with their work notes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ganad.scores.checksums import CheckedFile, to_parquet
from ganad.scores.files import SCHEMA_MARK, ScoreFile, model_folder
from ganad.scores.notes import Note, from_metadata, to_metadata
from ganad.scores.table import SCHEMA
from ganad.storage import files as storage

ROWS_PER_GROUP = 2**16
"""Rows per group in a sorted file; a query for the highest scores reads one group of each file."""


def read_part(file: ScoreFile) -> tuple[pa.Table, list[dict[str, Any]]]:
    """Read the rows, in the current schema, and the notes. Raises Damaged, and ArchiveError."""
    checked = CheckedFile(file.uri, file.size)
    return _in_schema(checked.table(), file.model), from_metadata(checked.metadata)


def write_part(file: ScoreFile, table: pa.Table, notes: Sequence[Note]) -> int:
    """Write a score file atomically and return its size in bytes. A file of several units is sorted
    by score, highest first. Raises ArchiveError."""
    order = None
    if file.last > file.first:
        # Rows without a score come last.
        order = pc.sort_indices(table, [("score", "descending"), ("image_id", "ascending")])
    data = to_parquet(table, to_metadata(notes), order=order, row_group_size=ROWS_PER_GROUP)
    storage.write_bytes(file.uri, data)
    return len(data)


def write_schema_mark(table: str, model: str) -> None:
    """Write a Parquet file without rows and without the column `model` that sorts before the other
    files in a model's folder.

    pyarrow takes a folder's schema from its first file, and rejects the folder if the column
    `model` has another type than the one pyarrow derives from the folder's name (string for a data
    set, dictionary for pandas). Iceberg needs the column in each part, so only the first file lacks
    it.
    """
    uri = storage.join(table, model_folder(model), SCHEMA_MARK)
    if not storage.exists(uri):
        columns = [field for field in SCHEMA if field.name != "model"]
        storage.write_bytes(uri, to_parquet(pa.schema(columns).empty_table()))


def _in_schema(table: pa.Table, model: str) -> pa.Table:
    """Add the column `model`, which parts of earlier versions lack."""
    table = table.replace_schema_metadata(None)
    if "model" not in table.schema.names:
        table = table.append_column("model", pa.array([model] * len(table), pa.string()))
    return table.select(SCHEMA.names)
