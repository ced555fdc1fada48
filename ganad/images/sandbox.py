"""Decode in another process: a file that crashes a library of Pillow, keeps it busy for ever or
fills its memory costs one error text, not the job.

The process is started at the first image and kept. It gets files in batches, one batch ahead.
"""

from __future__ import annotations

import atexit
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import TypeVar

import numpy as np

from ganad.images.child import SECONDS, Answer, Request
from ganad.images.decode import MAX_PIXELS, Decoded, Preprocessing, Values, failed

BATCH_FILES = 32
BATCH_BYTES = 2**22
"""A batch ends when it has so many files, or when they, or their pixels, have so many bytes."""
OUT_OF_TIME = f"decoding it takes more than {SECONDS:.0f} s of processor time"
_PROGRAM = "from ganad.images.child import main; main()"
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR")
"""Environment variables of the process that decodes; it gets no credentials."""

_SETTINGS = {
    "OPENBLAS_NUM_THREADS": "1",
    # Memory of one image is kept for the next: giving it back cost a fifth of the decoding.
    "MALLOC_TRIM_THRESHOLD_": str(2**26),
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
}

K = TypeVar("K")


def decode_all(
    items: Iterable[tuple[K, bytes]], preprocessings: Sequence[Preprocessing]
) -> Iterator[tuple[K, list[Decoded]]]:
    """Yield each key with its file decoded for every preprocessing, in order.

    Every file gives pixels or an error text. What items raises is raised once the files before it
    are decoded.
    """
    for key, answer in _answered(items, tuple(preprocessings)):
        if isinstance(answer, str):
            yield key, [failed(answer)] * len(preprocessings)
        else:
            yield key, [Decoded(array, *facts) for array, facts in answer]


def decode_whole(data: bytes, max_pixels: int = MAX_PIXELS) -> Values:
    """ganad.images.decode.decode_values in another process."""
    ((_, answer),) = _answered([(None, data)], max_pixels)
    if isinstance(answer, str):
        return Values(None, answer)
    ((array, (_, _, error)),) = answer
    return Values(array, error)


_Facts = tuple[int | None, int | None, str | None]
_Result = list[tuple[np.ndarray | None, _Facts]] | str
"""The arrays of one file, each with width, height and error; or how its decoding ended."""


def _answered(items: Iterable[tuple[K, bytes]], request: Request) -> Iterator[tuple[K, _Result]]:
    work = _Work(request)
    sent: deque[list[K]] = deque()
    faults: list[Exception] = []
    try:
        for keys, files in _batches(items, _batch_files(request), faults):
            work.send(files)
            sent.append(keys)
            if len(sent) > 1:
                yield from zip(sent.popleft(), work.receive(), strict=True)
        while sent:
            yield from zip(sent.popleft(), work.receive(), strict=True)
    finally:
        work.close()
    for fault in faults:
        raise fault


def _batches(
    items: Iterable[tuple[K, bytes]], most: int, faults: list[Exception]
) -> Iterator[tuple[list[K], list[bytes]]]:
    """The items in batches; one that could not be made ends them, and its error is in faults."""
    keys: list[K] = []
    files: list[bytes] = []
    num_bytes = 0
    try:
        for key, data in items:
            keys.append(key)
            files.append(data)
            num_bytes += len(data)
            if len(files) == most or num_bytes >= BATCH_BYTES:
                yield keys, files
                keys, files, num_bytes = [], [], 0
    except Exception as error:
        faults.append(error)
    if files:
        yield keys, files


def _file_space(request: Request) -> int:
    """Bytes of the arrays of one file; 0 where they are not known before."""
    if isinstance(request, int):
        return 0
    return sum(kind.image_bytes for kind in request)


def _batch_files(request: Request) -> int:
    """The most files in a batch."""
    space = _file_space(request)
    return min(BATCH_FILES, max(1, BATCH_BYTES // space)) if space else 1


class _Work:
    """Batches on their way to a process that decodes, and to the next one should that one die."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.child = _take_child()
        self.sent: deque[list[bytes]] = deque()

    def send(self, files: list[bytes]) -> None:
        self.sent.append(files)
        self.child.send(self.request, files)

    def receive(self) -> list[_Result]:
        """The results of the batch that was sent first."""
        try:
            results = self.child.receive(self.request)
        except (EOFError, ConnectionError):
            self._replace_child()
            results = [self._alone(data) for data in self.sent[0]]
            for files in list(self.sent)[1:]:
                self.child.send(self.request, files)
        self.sent.popleft()
        return results

    def _alone(self, data: bytes) -> _Result:
        """Decode a file of a batch at which the process died: it was this one or another."""
        self.child.send(self.request, [data])
        try:
            return self.child.receive(self.request)[0]
        except (EOFError, ConnectionError):
            return _ending(self._replace_child())

    def _replace_child(self) -> int:
        """Returns the exit status of the one before."""
        status = self.child.end()
        self.child = _Child()
        return status

    def close(self) -> None:
        if self.sent:  # nobody waits for the answers any more
            self.child.end()
        else:
            _idle.setdefault(os.getpid(), []).append(self.child)


def _ending(status: int) -> str:
    """The error text for a file at which the process ended."""
    if status == -signal.SIGPROF:
        return OUT_OF_TIME
    how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    return f"decoding it crashes ({how}); convert it with another program"


class _Child:
    """A process that decodes; receive raises EOFError or ConnectionError when it has died."""

    def __init__(self) -> None:
        ours, its = socket.socketpair()
        self.memory = os.memfd_create("ganad-pixels")
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        paths = [path or os.getcwd() for path in sys.path]
        environment |= {"PYTHONPATH": os.pathsep.join(paths), **_SETTINGS}
        with its:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", _PROGRAM, str(its.fileno()), str(self.memory)],
                pass_fds=(its.fileno(), self.memory),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # libtiff's warnings about single images
                start_new_session=True,  # Ctrl-C is for the process that waits for the answers
            )
        self.connection = Connection(ours.detach())
        self.num_sent = self.num_received = 0
        try:
            self.connection.recv_bytes()
        except (EOFError, ConnectionError):
            raise RuntimeError(
                f"the process that decodes ended with {self.end()} before it decoded anything"
            ) from None

    def send(self, request: Request, files: list[bytes]) -> None:
        """Send a batch. That the process has died shows when its answer is received."""
        place = self._place(request, self.num_sent)
        self.num_sent += 1
        try:
            self.connection.send_bytes(pickle.dumps((request, place, len(files))))
            for data in files:
                self.connection.send_bytes(data)
        except ConnectionError:
            return

    def receive(self, request: Request) -> list[_Result]:
        """The results of the batch that was sent first."""
        answers: list[list[Answer]] = pickle.loads(self.connection.recv_bytes())
        place = self._place(request, self.num_received)
        self.num_received += 1
        size = sum(one.num_bytes for some in answers for one in some)
        arrays = np.empty(size, np.uint8)
        view = arrays.data
        while view:
            num = os.preadv(self.memory, [view], place)
            view, place = view[num:], place + num
        if isinstance(request, int):
            os.ftruncate(self.memory, 0)  # it may have been a large image
        results: list[_Result] = []
        end = 0
        for some in answers:
            parts: list[tuple[np.ndarray | None, _Facts]] = []
            for one in some:
                start, end = end, end + one.num_bytes
                array = arrays[start:end].view(one.kind).reshape(one.shape)
                parts.append((None if one.error else array, (one.width, one.height, one.error)))
            results.append(parts)
        return results

    @staticmethod
    def _place(request: Request, number: int) -> int:
        """Where in the shared memory the arrays of a batch are: two batches take turns."""
        return number % 2 * _batch_files(request) * _file_space(request)

    def end(self) -> int:
        """End the process if it has not ended; its exit status, negative for a signal."""
        self.connection.close()
        os.close(self.memory)
        self.process.kill()
        return self.process.wait()


_idle: dict[int, list[_Child]] = {}
"""By the process that started them: after a fork the sockets are shared, but not the processes."""


def _take_child() -> _Child:
    try:
        return _idle.setdefault(os.getpid(), []).pop()
    except IndexError:
        return _Child()


@atexit.register
def _end_idle() -> None:
    for child in _idle.pop(os.getpid(), []):
        child.end()
