"""Merges the small files of a score table into large ones, sorted by score.

A scoring job writes one file per unit of work, so a table of a billion images has hundreds of
thousands. Each large file is written atomically and supersedes the small ones it replaces (see
ganad.scores.files.live), which are then removed. If the command is killed, ganad's own commands
still see every row once, and the same command continues. Other engines that list the folder may see
both kinds of files for a moment: do not compact a table while they read it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from ganad.errors import TableError
from ganad.scores import regions
from ganad.scores.checksums import Damaged
from ganad.scores.files import ScoreFile, list_files, live
from ganad.scores.parts import read_part, write_part
from ganad.storage import files as storage

TARGET_BYTES = 128 * 2**20
"""Minimum size of a large file; the last file of a model may be smaller."""


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
    current = live(files)
    with_regions = regions.models_with_regions(uri)
    rows = 0
    for group in _groups(current, target_bytes):
        rows += _merge(table, group, group[0].model in with_regions)
        on_rows(rows)
    # An interrupted command may have left superseded files.
    after = list_files(uri)
    kept = live(after)
    for file in after:
        if file not in kept:
            storage.remove(file.uri)
    regions.remove_left_over(uri, kept)
    return Compacted(len(current), len(kept))


def _groups(files: Sequence[ScoreFile], target_bytes: int) -> Iterator[list[ScoreFile]]:
    """Yield runs of files of one model with consecutive units, about target_bytes per run."""
    group: list[ScoreFile] = []
    for file in files:
        follows = group and file.model == group[-1].model and file.first == group[-1].last + 1
        full = sum(member.size for member in group) >= target_bytes
        if group and (not follows or full):
            if len(group) > 1:
                yield group
            group = []
        group.append(file)
    if len(group) > 1:
        yield group


def _merge(typed: str, group: Sequence[ScoreFile], with_regions: bool) -> int:
    tables, notes = [], []
    first = group[0]
    target = ScoreFile(first.table, first.model, first.first, group[-1].last)
    try:
        for file in group:
            rows, work = read_part(file)
            tables.append(rows)
            # Each note keeps the name of its original file.
            notes += [{"part": file.name, **note} for note in work]
        if with_regions:
            regions.merge(group, target)
    except Damaged as error:
        raise TableError(
            f"{typed} has a damaged file ({error}): run the same ganad score command again, "
            f"then compact"
        ) from None
    merged = pa.concat_tables(tables)
    write_part(target, merged, notes)
    for file in group:
        storage.remove(file.uri)
    return len(merged)
