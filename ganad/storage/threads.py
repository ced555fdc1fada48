"""Reads many files a few at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

NUM_LOCAL, NUM_REMOTE = 4, 16
"""Files that are read at a time. More are not quicker on disk, and the memory of each thread stays
with the process; on S3 a file takes some requests, most of which is waiting."""
NUM_WAITING = 512
"""Calls that wait for their turn, which takes memory too."""
T = TypeVar("T")
S = TypeVar("S")


def in_threads(call: Callable[[S], T], files: Sequence[S], *, remote: bool) -> Iterator[T]:
    """What the call gives for each file, in their order. remote: whether they are on S3."""
    with ThreadPoolExecutor(NUM_REMOTE if remote else NUM_LOCAL) as pool:
        for start in range(0, len(files), NUM_WAITING):
            yield from pool.map(call, files[start : start + NUM_WAITING])
