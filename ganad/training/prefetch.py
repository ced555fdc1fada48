"""Work done one item ahead, by a thread, while its consumer is busy with the item before."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def one_ahead(items: Iterable[T], make: Callable[[T], R]) -> Generator[R, None, None]:
    """make(item) of each item in turn; what it raises is raised where its result is awaited.

    All calls are made in order in one thread, which ends with this generator: close it (see
    contextlib.closing) where it may be left before its end.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="ganad-ahead")
    try:
        ready: Future[R] | None = None
        for item in items:
            following = pool.submit(make, item)
            if ready is not None:
                yield ready.result()
            ready = following
        if ready is not None:
            yield ready.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
