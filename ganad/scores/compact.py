"""Merges the small files of a score table into large ones, sorted by score.

A scoring job writes one file per unit of work, so a table of a billion images has hundreds of
thousands. The large file of a run of units is written whole; from that moment it counts and the
small ones do not (see ganad.scores.files.live), and then they are removed. Killed at any moment,
the table holds every row once for ganad's own commands, and the same command goes on. Other
engines that list the folder may see both kinds between the writing and the removal: compact a
table when nobody reads it with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from ganad.errors import TableError
from ganad.scores.checksums import Damaged
from ganad.scores.files import ScoreFile, list_files, live
from ganad.scores.parts import read_part, write_part
from ganad.storage import files as storage

TARGET_BYTES = 128 * 2**20
"""Size of a large file, at least, but for the last of a model."""


@dataclass(frozen=True)
class Compacted:
    """Number of files before and after."""

    before: int
    after: int


def compact(
    table: str,
    target_bytes: int = TARGET_BYTES,
    on_rows: Callable[[int], None] = lambda num: None,
) -> Compacted:
    """Merge files of consecutive units, model by model. on_rows: called with rows merged so far.

    Raises TableError if there is nothing to merge or a file is damaged, and ArchiveError.
    """
    uri = storage.absolute(table)
    files = list_files(uri)
    if not files:
        raise TableError(f"{table} holds no scores: give a folder that ganad score wrote")
    counting = live(files)
    rows = 0
    for group in _groups(counting, target_bytes):
        rows += _merge(table, group)
        on_rows(rows)
    # Also those that an interrupted command left.
    found = list_files(uri)
    kept = live(found)
    for file in found:
        if file not in kept:
            storage.remove(file.uri)
    return Compacted(len(counting), len(kept))


def _groups(files: Sequence[ScoreFile], target_bytes: int) -> Iterator[list[ScoreFile]]:
    """Files of one model whose units follow each other, about target_bytes together."""
    group: list[ScoreFile] = []
    for file in files:
        follows = group and file.model == group[-1].model and file.first == group[-1].last + 1
        full = sum(one.size for one in group) >= target_bytes
        if group and (not follows or full):
            if len(group) > 1:
                yield group
            group = []
        group.append(file)
    if len(group) > 1:
        yield group


def _merge(typed: str, group: Sequence[ScoreFile]) -> int:
    tables, notes = [], []
    for file in group:
        try:
            rows, work = read_part(file)
        except Damaged as error:
            raise TableError(
                f"{typed} has a damaged file ({error}): run the same ganad score command again, "
                f"then compact"
            ) from None
        tables.append(rows)
        # The note keeps the name of the file it was written in.
        notes += [{"part": file.name, **note} for note in work]
    merged = pa.concat_tables(tables)
    first = group[0]
    write_part(ScoreFile(first.table, first.model, first.first, group[-1].last), merged, notes)
    for file in group:
        storage.remove(file.uri)
    return len(merged)
