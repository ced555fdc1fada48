"""Where the time of a job goes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Stopwatch:
    """Seconds by name.

    with watch("saving"): ...
    for item in watch.each("steps", iterator): ...
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - began

    def each(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """The items; the time is that of getting them."""
        iterator = iter(items)
        end = object()
        while True:
            with self(name):
                item = next(iterator, end)
            if item is end:
                return
            yield item  # type: ignore[misc]
