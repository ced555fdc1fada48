"""Counts rows and images of score files, in memory that does not grow with the table.

A footer says how many rows of its file have a score and an error. Of the rows themselves only the
images' ids are read.
"""

from __future__ import annotations

import binascii
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ganad.errors import ArchiveError
from ganad.scores.checksums import CheckedFile, Damaged
from ganad.scores.files import ScoreFile
from ganad.scores.sql import damaged, foreign, out_of_reach
from ganad.storage import files as storage
from ganad.storage.distinct import Distinct, Numbers
from ganad.storage.threads import in_threads

_BATCH = 2**16
"""Ids of a file that are in memory at a time."""
_ID_CHARACTERS = 16
T = TypeVar("T")


@dataclass(frozen=True)
class Rows:
    """Numbers of rows of a file: all, those with a score, those with an error."""

    num: int
    scored: int
    failed: int


def count_rows(files: Sequence[ScoreFile], typed: str) -> list[Rows]:
    """Of each file; reads footers only. typed: the table as the user named it. Raises TableError
    for a file that is damaged or cannot be reached."""
    return list(_each(lambda parquet, _: _rows(parquet), files, typed))


def count_images(files: Sequence[ScoreFile], typed: str) -> tuple[list[Rows], dict[str, int]]:
    """What count_rows gives, and for each model how many different images its rows are of."""
    with ExitStack() as stack:
        images = {
            model: stack.enter_context(closing(Distinct()))
            for model in sorted({file.model for file in files})
        }

        def read(parquet: pq.ParquetFile, file: ScoreFile) -> Rows:
            for batch in parquet.iter_batches(_BATCH, columns=["image_id"], use_threads=False):
                images[file.model].add(numbers_of(batch.column("image_id")))
            return _rows(parquet)

        rows = list(_each(read, files, typed))
        return rows, {model: distinct.count() for model, distinct in images.items()}


def count_failures(files: Sequence[ScoreFile], typed: str) -> dict[str, int]:
    """Error text -> number of different images that have it, most frequent first. Raises what
    count_rows raises."""
    with ExitStack() as stack:
        images: dict[str, Distinct] = {}
        for found in _each(_failed, files, typed):
            for error, numbers in found:
                if error not in images:
                    images[error] = stack.enter_context(closing(Distinct()))
                images[error].add(numbers)
        counts = {error: distinct.count() for error, distinct in images.items()}
    return dict(sorted(counts.items(), key=lambda one: (-one[1], one[0])))


def _failed(parquet: pq.ParquetFile, _: ScoreFile) -> list[tuple[str, Numbers]]:
    """Error texts of a file with the ids of their images; a text may occur again."""
    found: list[tuple[str, Numbers]] = []
    columns = ["image_id", "error"]
    for batch in parquet.iter_batches(_BATCH, columns=columns, use_threads=False):
        rows = pa.Table.from_batches([batch]).select(columns).drop_null()
        if not rows.num_rows:
            continue
        texts = rows["error"].combine_chunks().dictionary_encode()
        order = np.argsort(texts.indices, kind="stable")
        numbers = numbers_of(rows["image_id"].combine_chunks())[order]
        ends = np.cumsum(np.bincount(texts.indices, minlength=len(texts.dictionary)))
        found += zip(texts.dictionary.to_pylist(), np.split(numbers, ends[:-1]), strict=True)
    return found


def _each(
    call: Callable[[pq.ParquetFile, ScoreFile], T], files: Sequence[ScoreFile], typed: str
) -> Iterator[T]:
    """What the call gives for each file, in their order."""

    def opened(file: ScoreFile) -> T:
        try:
            with CheckedFile(file.uri, file.size).parquet() as parquet:
                return call(parquet, file)
        except (Damaged, OSError, pa.ArrowException):
            raise damaged(typed, file.path) from None
        except ArchiveError as error:
            raise out_of_reach(typed, error) from error
        except KeyError as error:
            raise foreign(typed, f"{file.path}: {error.args[0]}") from None

    return in_threads(opened, files, remote=storage.is_remote(typed))


def _rows(parquet: pq.ParquetFile) -> Rows:
    num = parquet.metadata.num_rows
    return Rows(num, num - _num_nulls(parquet, "score"), num - _num_nulls(parquet, "error"))


def _num_nulls(parquet: pq.ParquetFile, name: str) -> int:
    """Rows without a value in the column: of the footer's statistics, else of the column."""
    groups = [parquet.metadata.row_group(i) for i in range(parquet.metadata.num_row_groups)]
    chunks = [group.column(i) for group in groups for i in range(group.num_columns)]
    found = [chunk.statistics for chunk in chunks if chunk.path_in_schema == name]
    if len(found) == len(groups) and all(s is not None and s.has_null_count for s in found):
        return sum(statistics.null_count for statistics in found)
    batches = parquet.iter_batches(_BATCH, columns=[name], use_threads=False)
    return sum(batch.column(name).null_count for batch in batches)


def numbers_of(ids: pa.Array) -> Numbers:
    """The ids of images as 64-bit numbers, those that are null left out.

    An id is 16 hexadecimal digits. One of another form, which another program wrote, becomes a
    digest of its text.
    """
    ids = ids.drop_null()
    try:
        digits = ids.cast(pa.binary(_ID_CHARACTERS)).buffers()[1].to_pybytes()
        if digits != digits.lower():
            raise ValueError
        return np.frombuffer(binascii.unhexlify(digits), ">u8").astype(np.uint64)
    except (pa.ArrowInvalid, ValueError):
        return np.array([_number(id) for id in ids.to_pylist()], np.uint64)


def _number(id: str) -> int:
    if len(id) == _ID_CHARACTERS and id == id.lower():
        try:
            return int.from_bytes(binascii.unhexlify(id), "big")
        except ValueError:
            pass
    digest = hashlib.blake2b(id.encode("utf-8", "surrogateescape"), digest_size=8)
    return int.from_bytes(digest.digest(), "big")
