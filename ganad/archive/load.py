"""Rows of a manifest -> decoded images: each file fetched once, decoded once per preprocessing."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ganad.archive import storage
from ganad.archive.decode import Decoded, Preprocessing, decode, failed
from ganad.archive.reasons import reason_of

WAITS_S = (0.5, 1.0, 2.0)
"""Before the second, third and fourth attempt at a fetch whose failure may pass; the S3 client has
tried three times by itself each time."""
BYTES_PER_PIXEL = 16
"""A file of more bytes than this for each of max_pixels is no image, and would fill the memory."""


def load_images(
    rows: Sequence[Mapping[str, Any]],
    preprocessings: Sequence[Preprocessing],
    num_threads: int = 8,
) -> list[list[Decoded]]:
    """result[i][j]: row i decoded for preprocessing j; the order of the rows is kept.

    A row has uri, offset and size (both may be None: the whole file). Nothing is raised for an
    image that cannot be fetched or decoded: it has an error text. Local files are read in this
    thread, files on S3 in num_threads.
    """
    if num_threads == 1 or not any(storage.is_remote(row["uri"]) for row in rows):
        return [_load(row, preprocessings) for row in rows]
    with ThreadPoolExecutor(num_threads) as pool:
        return list(pool.map(lambda row: _load(row, preprocessings), rows))


def _load(row: Mapping[str, Any], preprocessings: Sequence[Preprocessing]) -> list[Decoded]:
    try:
        data = _fetch(row, max(kind.max_pixels for kind in preprocessings))
    except _FetchError as error:
        return [failed(str(error))] * len(preprocessings)
    return [decode(data, kind) for kind in preprocessings]


class _FetchError(Exception):
    """Its message is the whole error text."""


def _fetch(row: Mapping[str, Any], max_pixels: int) -> bytes:
    offset, size = row.get("offset"), row.get("size")
    if size is not None and size > BYTES_PER_PIXEL * max_pixels:
        raise _FetchError(f"the file of {size} bytes is larger than any image of max_pixels")
    # A loose file is read whole, whatever size it had when it was listed.
    data = _read(row["uri"], offset, None if offset is None else size)
    if offset is not None and size is not None and len(data) < size:
        raise _FetchError("truncated: the archive ends before this member does")
    return data


def _read(uri: str, offset: int | None, size: int | None) -> bytes:
    for wait_s in (*WAITS_S, None):
        try:
            return storage.read(uri, offset, size)
        except Exception as error:
            reason = reason_of(error)
            if reason is None:
                raise _FetchError(f"cannot be fetched: {type(error).__name__}") from error
            if wait_s is None or not reason.transient:
                raise _FetchError(f"cannot be fetched: {reason.text}") from error
        # Spread out, as the workers that failed together would come back together.
        time.sleep(wait_s * random.uniform(0.5, 1.5))
    raise AssertionError("the last attempt returns or raises")
