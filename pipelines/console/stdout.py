"""Translates errors of standard output, such as a full disk, into one sentence.

Python would print a traceback, or report the error after the program has ended.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, TextIO

from ganad.errors import OutputError

CLOSED_PIPE = 141
"""Exit status if the reader of a pipe has gone: 128 + SIGPIPE, as in shells."""


@contextmanager
def checked_stdout() -> Iterator[None]:
    """Within this context, errors of standard output raise OutputError. If the reader of a pipe has
    gone (`| head`), the program ends silently."""
    before = sys.stdout
    sys.stdout = _Checked(before)
    try:
        yield
        sys.stdout.flush()
    except SystemExit:
        sys.stdout.flush()
        raise
    finally:
        sys.stdout = before


class _Checked:
    """A text stream that translates write errors."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with _translated(self._stream):
            return self._stream.write(text)

    def flush(self) -> None:
        with _translated(self._stream):
            self._stream.flush()

    @cached_property
    def buffer(self) -> _CheckedBytes:
        # Kept: a file object that is forgotten flushes itself, and its errors are lost.
        return _CheckedBytes(self._stream)


class _CheckedBytes(io.RawIOBase):
    """The binary stream below, for formats that are not text. Closing it keeps standard output
    open."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._written = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        with _translated(self._stream):
            num = self._stream.buffer.write(data)
        self._written += num
        return num

    def tell(self) -> int:
        return self._written

    def flush(self) -> None:
        if not self.closed:
            with _translated(self._stream):
                self._stream.buffer.flush()


@contextmanager
def _translated(stream: TextIO) -> Iterator[None]:
    try:
        yield
    except UnicodeEncodeError as error:
        shown = error.object[error.start : error.end][:1].encode("unicode_escape").decode()
        raise OutputError(
            f"standard output cannot hold {shown} (its encoding is {stream.encoding}): set "
            f"PYTHONIOENCODING=utf-8"
        ) from None
    except OSError as error:
        _discard(stream)
        if error.errno == errno.EPIPE:
            sys.exit(CLOSED_PIPE)
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        raise OutputError(
            f"standard output cannot be written ({reason}): redirect it to another place"
        ) from None


def _discard(stream: TextIO) -> None:
    """Discard the buffer; otherwise Python would fail on it again at exit."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
