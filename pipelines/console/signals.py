"""Ctrl-C and SIGTERM end a command that only reads within a second, with status 130 or 143.

Python runs its signal handlers in the main thread, and only between its own instructions: a thread
of C++ in a long query, in a decoder or in a library's network call would not notice for minutes.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import NoReturn, ParamSpec, TypeVar

from ganad.storage.database import remove_spill_folders

P = ParamSpec("P")
R = TypeVar("R")
SIGNALS = (signal.SIGINT, signal.SIGTERM)
PATIENCE_S = 0.9
"""Seconds that a command gets to end by itself."""


class Stopped(SystemExit):
    """The end of a command that a signal stopped, with its exit status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def stops_promptly(command: Callable[P, R]) -> Callable[P, R]:
    """Decorator of a command that leaves nothing half done, so that it may end at any moment."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with prompt_end():
            return command(*args, **kwargs)

    return run


@contextmanager
def prompt_end() -> Iterator[None]:
    """While it lasts, a signal ends the process: in order if that is quick, else at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []

    def stop(number: int, frame: object) -> None:
        received.append(number)
        raise Stopped(128 + number)

    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    before = {number: signal.signal(number, stop) for number in SIGNALS}
    threading.Thread(target=_watch, args=(reading,), daemon=True, name="ganad-signals").start()
    try:
        yield
    except Exception:
        if received:  # a library has made an error of its own out of Stopped
            raise Stopped(128 + received[0]) from None
        raise
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writing)  # ends the watch, unless it is counting down


def _watch(reading: int) -> None:
    """Wait for a signal, which C code writes to the pipe even while Python cannot run; then end
    the process if it is still there after PATIENCE_S."""
    while number := os.read(reading, 1):
        if number[0] in SIGNALS:
            time.sleep(PATIENCE_S)
            end(128 + number[0])
    os.close(reading)


def end(status: int) -> NoReturn:
    """End the process at once: libraries take seconds to unload."""
    remove_spill_folders()
    os.write(2, b"stopped\n")
    os._exit(status)
