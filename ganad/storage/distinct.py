"""Counts distinct numbers in memory that does not grow with how many there are."""

from __future__ import annotations

import tempfile
import threading
from dataclasses import dataclass
from typing import IO

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.uint64]

HELD = 2**18
"""Numbers in memory before they are written, 2 MiB."""
NUM_SLICES = 256
"""Ranges of values that are counted one after another."""
_EDGES = np.arange(1, NUM_SLICES, dtype=np.uint64) << np.uint64(56)


@dataclass(frozen=True)
class _Run:
    """Sorted numbers, in memory or in the file."""

    bounds: list[int]
    """Of each slice of values: where it begins among the numbers, and at last where it ends."""
    numbers: Numbers | None
    offset: int
    """Bytes into the file."""


class Distinct:
    """Counts distinct 64-bit numbers that are spread evenly, as digests are; threads may add them.

    What is more than HELD numbers lies in a temporary file without a name, 8 bytes for each number;
    it ends with the process. Where no file can be written, the numbers stay in memory. Close it
    after use.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._added: list[Numbers] = []
        self._num_added = 0
        self._runs: list[_Run] = []
        self._file: IO[bytes] | None = None

    def add(self, numbers: Numbers) -> None:
        """Add numbers, uint64 of any length."""
        with self._lock:
            self._added.append(numbers)
            self._num_added += len(numbers)
            if self._num_added >= HELD:
                self._runs.append(self._written(self._sorted()))

    def count(self) -> int:
        """How many different numbers were added."""
        with self._lock:
            if self._num_added:
                self._runs.append(self._sorted())
            return sum(self._count(place) for place in range(NUM_SLICES)) if self._runs else 0

    def close(self) -> None:
        """Free the memory and the file."""
        self._added, self._runs = [], []
        if self._file is not None:
            self._file.close()

    def _sorted(self) -> _Run:
        numbers = np.sort(np.concatenate(self._added))
        self._added, self._num_added = [], 0
        edges = np.searchsorted(numbers, _EDGES).tolist()
        return _Run([0, *edges, len(numbers)], numbers, 0)

    def _written(self, run: _Run) -> _Run:
        """The run in the file; as it is where it cannot be written."""
        assert run.numbers is not None
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="ganad-")  # noqa: SIM115  # see close
            offset = self._file.seek(0, 2)
            self._file.write(run.numbers.tobytes())
            self._file.flush()
        except OSError:
            return run
        return _Run(run.bounds, None, offset)

    def _count(self, place: int) -> int:
        """Different numbers of one slice of values."""
        numbers = np.sort(np.concatenate([self._slice(run, place) for run in self._runs]))
        return bool(len(numbers)) + int(np.count_nonzero(numbers[1:] != numbers[:-1]))

    def _slice(self, run: _Run, place: int) -> Numbers:
        start, end = run.bounds[place], run.bounds[place + 1]
        if run.numbers is not None:
            return run.numbers[start:end]
        assert self._file is not None
        self._file.seek(run.offset + 8 * start)
        return np.frombuffer(self._file.read(8 * (end - start)), np.uint64)
