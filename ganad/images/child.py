"""The process that decodes for another one (see ganad.images.sandbox). It reads files from a socket
and writes pixels to shared memory.
"""

from __future__ import annotations

import math
import os
import pickle
import resource
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import NamedTuple

import numpy as np

from ganad.images.decode import Decoded, Preprocessing, Values, decode, decode_values

SECONDS = 60.0
"""Processor time that one image may take."""
MEMORY_PER_PIXEL = 10
"""Bytes of memory for each of max_pixels that one image may take: 2 GB at the default."""
MEMORY_BESIDE = 2**28
"""Bytes of memory for small buffers, whatever max_pixels is."""

Request = Sequence[Preprocessing] | int
"""Sizes to decode to; or max_pixels, to decode to the image's own size."""


class Answer(NamedTuple):
    """What became of one file for one size. shape, kind: of the array, as numpy has them."""

    width: int | None
    height: int | None
    error: str | None
    shape: tuple[int, ...] = (0,)
    kind: str = "|u1"

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.kind).itemsize


def main() -> None:
    """Serve the socket and the shared memory whose file numbers are the arguments."""
    serve(Connection(int(sys.argv[1])), int(sys.argv[2]))


def serve(connection: Connection, memory: int) -> None:
    """Answer batches of files until the other end is closed.

    A batch is a message (request, where in the shared memory its arrays go, number of files), and
    a message for each file. Its answer is a list of Answer for each file.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    own = _address_space()
    connection.send_bytes(b"ready")
    while True:
        try:
            request, place, num = pickle.loads(connection.recv_bytes())
            files = [connection.recv_bytes() for _ in range(num)]
        except (EOFError, OSError):
            return
        limits = [request] if isinstance(request, int) else [kind.max_pixels for kind in request]
        memory_of_one = MEMORY_PER_PIXEL * max(limits) + MEMORY_BESIDE
        there = own + sum(map(len, files))
        answers: list[list[Answer]] = []
        for data in files:
            with _limits(there + len(data) + memory_of_one):
                results = _decode(data, request)
            stored, place = _store(results, memory, place)
            answers.append(stored)
        connection.send_bytes(pickle.dumps(answers))


def _decode(data: bytes, request: Request) -> Sequence[Decoded | Values]:
    if isinstance(request, int):
        return [decode_values(data, request)]
    return [decode(data, kind) for kind in request]


@contextmanager
def _limits(memory: int) -> Iterator[None]:
    """Allow so many bytes of address space; end this process after SECONDS of processor time.

    Both hold inside the libraries of Pillow, where no Python code could stop them.
    """
    resource.setrlimit(resource.RLIMIT_AS, (memory, resource.RLIM_INFINITY))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def _address_space() -> int:
    """Bytes of this process's address space."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _store(
    results: Sequence[Decoded | Values], memory: int, place: int
) -> tuple[list[Answer], int]:
    """Write the arrays to shared memory, one behind the other; returns where the last one ends."""
    answers: list[Answer] = []
    for result in results:
        width = height = None
        if isinstance(result, Decoded):
            array, width, height = result.image, result.width, result.height
        else:
            array = result.array
        if array is None:
            answers.append(Answer(None, None, result.error))
            continue
        view = np.ascontiguousarray(array).data.cast("B")
        while view:  # the kernel takes up to two gigabytes at a time
            written = os.pwrite(memory, view, place)
            view, place = view[written:], place + written
        answers.append(Answer(width, height, None, array.shape, array.dtype.str))
    return answers, place
