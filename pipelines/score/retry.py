"""Score images again that have an error, and only these: no row with a score is ever touched.

Their rows are collected into TABLE/_retry and scored there like a small archive. Then the results
take the place of the rows with errors, file by file. A killed command is continued by the next one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ganad.archive.parts import ROWS_PER_PART, Part
from ganad.archive.rows import SCHEMA, Row
from ganad.errors import TableError
from ganad.scores import regions
from ganad.scores.checksums import CheckedFile
from ganad.scores.files import JOB, ScoreFile, list_files, live
from ganad.scores.parts import read_part, write_part
from ganad.scores.records import Name
from ganad.scores.table import SCHEMA as SCORES
from ganad.scores.table import ScoreTable
from ganad.storage import files as storage
from ganad.storage.records import Record, read_record, write_record
from pipelines.passes.units import Unit

FOLDER = "_retry"


class Retry(Record):
    """TABLE/_retry/_job.json, written when all rows are collected."""

    models: list[Name]
    parts: list[tuple[Name, int]]
    """Names and rows of the files that list the images."""


def open_retry(table: str, ids: Sequence[str], units: Sequence[Unit]) -> list[Part]:
    """Files with the manifest's rows of all images that have an error under one of the models:
    those of a retry that was begun, else new ones.

    units: all of the table, in order.
    """
    folder = storage.join(table, FOLDER)
    uri = storage.join(folder, JOB)
    if storage.exists(uri):
        job = read_record(uri, Retry, f"remove {folder}", TableError)
        if set(job.models) == set(ids):
            return [Part(storage.join(folder, name), num) for name, num in job.parts]
    storage.remove_folder(folder)
    parts = list(_write(folder, _failed_rows(_with_errors(table, ids), units)))
    if parts:
        names = [(part.uri.rpartition("/")[2], part.num_rows) for part in parts]
        write_record(uri, Retry(models=list(ids), parts=names))
    return parts


def _write(folder: str, rows: Iterator[Row]) -> Iterator[Part]:
    number = 0
    while some := list(islice(rows, ROWS_PER_PART)):
        uri = storage.join(folder, f"rows-{number:05d}.parquet")
        storage.write_table(uri, pa.Table.from_pylist(some, schema=SCHEMA))
        yield Part(uri, len(some))
        number += 1


def _with_errors(table: str, ids: Sequence[str]) -> list[ScoreFile]:
    if not any(file.model in ids for file in list_files(table)):
        return []
    return ScoreTable(table, ids).files_with_errors()


def _failed_rows(files: Iterable[ScoreFile], units: Sequence[Unit]) -> Iterator[Row]:
    """Rows of the units, in order, of images that have an error in one of the files."""
    waiting = sorted(files, key=lambda file: -file.first)
    active: list[tuple[ScoreFile, set[str]]] = []
    """A file, and the images that have an error in it."""
    for unit in units:
        while waiting and waiting[-1].first <= unit.number:
            file = waiting.pop()
            active.append((file, _failed_ids(file)))
        active = [(file, ids) for file, ids in active if file.last >= unit.number]
        if active:
            wanted = set().union(*(ids for _, ids in active))
            yield from (row for row in unit.rows() if row["image_id"] in wanted)


def _failed_ids(file: ScoreFile) -> set[str]:
    failed = pc.field("error").is_valid()
    rows = CheckedFile(file.uri, file.size).table(["image_id"], failed)
    return set(rows["image_id"].to_pylist())


def finish_retry(table: str) -> None:
    """Replace rows with errors by the results of the retry, and remove its folder."""
    folder = storage.join(table, FOLDER)
    files = live(list_files(folder))
    with_regions = regions.models_with_regions(table)
    for model in sorted({file.model for file in files}):
        found = None
        if model in with_regions:
            some = [regions.read(file) for file in files if file.model == model]
            found = pa.concat_tables(some)
        results = _Results(file for file in files if file.model == model)
        for file in ScoreTable(table, [model]).files_with_errors():
            before, notes = read_part(file)
            if found is not None:
                failed = before.filter(pc.is_valid(before["error"]))["image_id"]
                regions.replace_images(file, failed.combine_chunks(), found)
            write_part(file, results.put_into(before), notes)
    storage.remove_folder(folder)


class _Results:
    """Results of a model in the order of the units, as its files are too: a few are in memory."""

    def __init__(self, files: Iterable[ScoreFile]) -> None:
        self._files = iter(files)
        self._rows = SCORES.empty_table()
        """Rows that were read and are not used yet."""

    def put_into(self, table: pa.Table) -> pa.Table:
        """The table with results in the place of its rows with errors."""
        failed = np.flatnonzero(pc.is_valid(table["error"]).to_numpy())
        ids = table["image_id"].take(failed).combine_chunks()
        while (self._places(ids) < 0).any():
            file = next(self._files, None)
            if file is None:  # errors that came after the rows were collected
                break
            self._rows = pa.concat_tables([self._rows, read_part(file)[0]])
        places = self._places(ids)
        rows = np.arange(len(table))
        rows[failed[places >= 0]] = len(table) + places[places >= 0]
        both = pa.concat_tables([table, self._rows])
        self._rows = self._rows.slice(max(places, default=-1) + 1)
        return both.take(rows)

    def _places(self, ids: pa.Array) -> np.ndarray:
        """Where the images are among the rows; -1 for one that is not there."""
        places = pc.index_in(ids, value_set=self._rows["image_id"].combine_chunks())
        return np.asarray(places.fill_null(-1))
