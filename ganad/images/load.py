"""Rows of a manifest -> decoded images: each file fetched once, decoded once per preprocessing."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa

from ganad.archive.parquets import read_cells
from ganad.errors import ArchiveError, Outage
from ganad.images.decode import MAX_PIXELS, Decoded, Preprocessing, Values, failed
from ganad.images.sandbox import decode_all, decode_whole
from ganad.storage import files as storage
from ganad.storage.reasons import translated
from ganad.storage.retry import OnRetry, patiently, why

BYTES_PER_PIXEL, BYTES_BESIDE = 8, 2**26
"""A file may have so many bytes for each of max_pixels (four channels of 16 bits, not compressed),
and beside them so many for what is not pixels. More are never read."""
UNFETCHED = "cannot be fetched"
"""How the error of an image begins whose bytes were not to be had: it may be there later."""

Row = Mapping[str, Any]
Numbered = tuple[int, Row]
K = TypeVar("K")


class _Way(NamedTuple):
    """How images are fetched and decoded, the same for all rows of a call."""

    preprocessings: Sequence[Preprocessing]
    patience_s: float
    on_retry: OnRetry | None

    @property
    def most_bytes(self) -> int:
        return _most_bytes(max(kind.max_pixels for kind in self.preprocessings))

    def failed(self, error: str) -> list[Decoded]:
        return [failed(error)] * len(self.preprocessings)


def load_images(
    rows: Sequence[Row],
    preprocessings: Sequence[Preprocessing],
    num_threads: int = 8,
    patience_s: float = 0,
    on_retry: OnRetry | None = None,
) -> list[list[Decoded]]:
    """result[i][j]: row i decoded for preprocessing j; the order of the rows is kept.

    A row has uri, offset and size (both may be None: the whole file), and column where it lies in a
    Parquet file; one with an error keeps that. Nothing is raised for an image that cannot be
    fetched or decoded: it has an error text. Local files are read in this thread, files on S3 in
    num_threads.

    patience_s: for a job, how long storage that does not answer is waited for. When it runs out, or
    where no file could be fetched any more (credentials), ArchiveError is raised: such faults are
    not the images'. With 0 they are error texts as well. on_retry is called from any thread.
    """
    way = _Way(preprocessings, patience_s, on_retry)
    loose: list[Numbered] = []
    in_parquet: dict[tuple[str, str], list[Numbered]] = {}
    result: list[list[Decoded]] = [[]] * len(rows)
    for number, row in enumerate(rows):
        if row.get("error"):
            result[number] = way.failed(row["error"])
        elif row.get("column") is None:
            loose.append((number, row))
        else:
            in_parquet.setdefault((row["uri"], row["column"]), []).append((number, row))
    for number, decoded in _load_loose(loose, way, num_threads):
        result[number] = decoded
    for (uri, column), some in in_parquet.items():
        for number, decoded in _load_cells(uri, column, some, way).items():
            result[number] = decoded
    return result


def read_image(uri: str, max_pixels: int = MAX_PIXELS) -> Values:
    """All pixels of an image that stands alone, such as a mask, within the same limits.

    Raises ArchiveError if it cannot be read; what cannot be decoded has an error text.
    """
    most = _most_bytes(max_pixels)
    with translated(uri):
        data = storage.read(uri, size=most + 1)
    if len(data) > most:
        return Values(None, _too_large(f"more than {most}"))
    return decode_whole(data, max_pixels)


def _load_loose(
    rows: Sequence[Numbered], way: _Way, num_threads: int
) -> Iterator[tuple[int, list[Decoded]]]:
    is_local = not any(storage.is_remote(row["uri"]) for _, row in rows)
    fetched = _fetched(rows, way) if is_local else _fetched_ahead(rows, way, num_threads)
    errors: dict[int, str] = {}
    yield from decode_all(_without(fetched, errors), way.preprocessings)
    yield from ((number, way.failed(error)) for number, error in errors.items())


def _without(
    fetched: Iterable[tuple[K, bytes | _FetchError]], errors: dict[K, str]
) -> Iterator[tuple[K, bytes]]:
    """What could be fetched; the rest is added to errors."""
    for key, data in fetched:
        if isinstance(data, _FetchError):
            errors[key] = str(data)
        else:
            yield key, data


def _fetched(rows: Iterable[Numbered], way: _Way) -> Iterator[tuple[int, bytes | _FetchError]]:
    for number, row in rows:
        try:
            yield number, _fetch(row, way)
        except _FetchError as error:
            yield number, error


def _fetched_ahead(
    rows: Iterable[Numbered], way: _Way, num_threads: int
) -> Iterator[tuple[int, bytes | _FetchError]]:
    """The same with several requests at a time, and no more files in memory than threads."""
    pool = ThreadPoolExecutor(num_threads)
    coming: deque[Future[list[tuple[int, bytes | _FetchError]]]] = deque()
    try:
        for row in rows:
            if len(coming) == num_threads:
                yield from coming.popleft().result()
            coming.append(pool.submit(lambda row: list(_fetched([row], way)), row))
        while coming:
            yield from coming.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class _FetchError(Exception):
    """Its message is the whole error text."""


def _fetch(row: Row, way: _Way) -> bytes:
    uri, offset, size = row["uri"], row.get("offset"), row.get("size")
    if min(offset or 0, size or 0) < 0:
        raise _FetchError("its place in the archive is negative: make the manifest again")
    if size is not None and size > way.most_bytes:
        raise _FetchError(_too_large(f"{size}"))
    # A loose file is read whole, whatever size it had when it was listed, up to the limit.
    num = way.most_bytes + 1 if offset is None or size is None else size
    try:
        data = patiently(lambda: storage.read(uri, offset, num), uri, way.patience_s, way.on_retry)
    except Exception as error:
        raise _blamed(error, uri, way) from error
    if len(data) > way.most_bytes:
        raise _FetchError(_too_large(f"more than {way.most_bytes}"))
    if offset is not None and size is not None and len(data) < size:
        raise _FetchError("truncated: the archive ends before this member does")
    return data


def _load_cells(
    uri: str, column: str, rows: Sequence[Numbered], way: _Way
) -> dict[int, list[Decoded]]:
    """Images of one Parquet file. After a failure only those that are missing are read again."""
    places: dict[int, list[int]] = {}
    for number, row in rows:
        places.setdefault(int(row["offset"]), []).append(number)
    result: dict[int, list[Decoded]] = {}

    def read() -> None:
        missing = [place for place, numbers in places.items() if numbers[0] not in result]
        cells = ((place, _checked(data, way)) for place, data in read_cells(uri, column, missing))
        errors: dict[int, str] = {}
        for place, decoded in decode_all(_without(cells, errors), way.preprocessings):
            result.update((number, decoded) for number in places[place])
        for place, text in errors.items():
            result.update((number, way.failed(text)) for number in places[place])

    error = "the file has no such row any more"
    try:
        patiently(read, uri, way.patience_s, way.on_retry)
    except Exception as fault:
        blamed = _blamed(fault, uri, way)
        if not isinstance(blamed, _FetchError):
            raise blamed from fault
        error = str(blamed)
    return {number: result.get(number, way.failed(error)) for number, _ in rows}


def _checked(data: bytes | None, way: _Way) -> bytes | _FetchError:
    """The bytes of a cell, or why they are no image."""
    if data is None:
        return _FetchError("the row holds no bytes")
    return _FetchError(_too_large(f"{len(data)}")) if len(data) > way.most_bytes else data


def _blamed(error: Exception, uri: str, way: _Way) -> Exception:
    """The error of one image, or what says that the fault lies elsewhere."""
    if isinstance(error, Outage):
        return error
    reason = why(error)
    # What pyarrow raises for pages that cannot be decompressed is an OSError without a number.
    nameless = type(error) is OSError and error.errno is None and error.__cause__ is None
    if isinstance(error, pa.ArrowException) or nameless:
        return _FetchError(f"{UNFETCHED}: the Parquet file is damaged")
    if reason is None:
        return _FetchError(f"{UNFETCHED}: {type(error).__name__}")
    if reason.everywhere and way.patience_s:
        return ArchiveError(f"{uri}: {reason.text}")
    return _FetchError(f"{UNFETCHED}: {reason.text}")


def _most_bytes(max_pixels: int) -> int:
    return BYTES_PER_PIXEL * max_pixels + BYTES_BESIDE


def _too_large(size: str) -> str:
    return f"the file of {size} bytes is larger than any image of max_pixels"
