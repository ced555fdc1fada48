"""Ctrl-C and SIGTERM end a command within a second, a job on Ray within three, with status 130 or
143 and a sentence.

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

from ganad.storage.private import remove_private_folders
from pipelines.console.progress import STOPPED

P = ParamSpec("P")
R = TypeVar("R")
SIGNALS = (signal.SIGINT, signal.SIGTERM)
PATIENCE_S = 0.9
"""Seconds that a command gets to end by itself."""
JOB_PATIENCE_S = 2.0
"""The same for a job on Ray, which has processes to end: those that it leaves end by themselves."""


class Stopped(SystemExit):
    """The end of a command that a signal stopped, with its exit status and what to say."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(status)
        self.status, self.sentence = status, sentence


def stops_promptly(command: Callable[P, R]) -> Callable[P, R]:
    """Decorator of a command that leaves nothing half done, so that it may end at any moment."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with prompt_end():
            return command(*args, **kwargs)

    return run


def stops_and_resumes(command: Callable[P, R]) -> Callable[P, R]:
    """Decorator of a job on Ray, which may end at any moment because it resumes."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with prompt_end(STOPPED, JOB_PATIENCE_S):
            return command(*args, **kwargs)

    return run


@contextmanager
def prompt_end(sentence: str = "stopped", patience_s: float = PATIENCE_S) -> Iterator[None]:
    """While it lasts, a signal ends the process: in order if that is quick, else at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []

    def stop(number: int, frame: object) -> None:
        received.append(number)
        raise Stopped(128 + number, sentence)

    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    before = {number: signal.signal(number, stop) for number in SIGNALS}
    watch = (reading, sentence, patience_s)
    threading.Thread(target=_watch, args=watch, daemon=True, name="ganad-signals").start()
    try:
        yield
    except BaseException:
        if received:  # a library has made an error, or a SystemExit, of its own out of Stopped
            raise Stopped(128 + received[0], sentence) from None
        raise
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writing)  # ends the watch, unless it is counting down


def _watch(reading: int, sentence: str, patience_s: float) -> None:
    """Wait for a signal, which C code writes to the pipe even while Python cannot run; then end
    the process if it is still there after patience_s."""
    while number := os.read(reading, 1):
        if number[0] in SIGNALS:
            time.sleep(patience_s)
            end(Stopped(128 + number[0], sentence))
    os.close(reading)


def end(stopped: Stopped) -> NoReturn:
    """End the process at once: libraries take seconds to unload."""
    remove_private_folders()
    os.write(2, f"{stopped.sentence}\n".encode())
    os._exit(stopped.status)


@contextmanager
def kept_handlers() -> Iterator[None]:
    """Handlers that a library installs meanwhile, such as Ray's, which prints a stack of C++ on
    SIGTERM, give way again to those of before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
