"""Ends a command within one second of Ctrl-C or SIGTERM, or a Ray job within three seconds.

The exit status is 130 or 143. Python runs signal handlers in the main thread, between bytecode
instructions, so C++ code in a long query, a decoder or a network call could delay them for minutes.
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
"""Seconds that a command has to end by itself."""
JOB_PATIENCE_S = 2.0
"""The same for a Ray job, which has to end processes; any that remain end by themselves."""


class Stopped(SystemExit):
    """Raised when a signal stops a command, with the exit status and a sentence to print."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(status)
        self.status, self.sentence = status, sentence


def stops_promptly(command: Callable[P, R]) -> Callable[P, R]:
    """Decorator of a command that may end at any moment because it leaves nothing half done."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with prompt_end():
            return command(*args, **kwargs)

    return run


def stops_and_resumes(command: Callable[P, R]) -> Callable[P, R]:
    """Decorator of a Ray job, which may end at any moment because it can resume."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with prompt_end(STOPPED, JOB_PATIENCE_S):
            return command(*args, **kwargs)

    return run


@contextmanager
def prompt_end(sentence: str = "stopped", patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Within this context, a signal ends the process: cleanly if that is quick, else abruptly."""
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
        if received:  # a library may have turned Stopped into another error
            raise Stopped(128 + received[0], sentence) from None
        raise
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writing)  # ends the watch, unless it is counting down


def _watch(reading: int, sentence: str, patience_s: float) -> None:
    """Wait for a signal, which C code writes to the pipe even if Python code is blocked; then end
    the process unless it ends itself within patience_s."""
    while number := os.read(reading, 1):
        if number[0] in SIGNALS:
            time.sleep(patience_s)
            end(Stopped(128 + number[0], sentence))
    os.close(reading)


def end(stopped: Stopped) -> NoReturn:
    """End the process immediately; unloading the libraries would take seconds."""
    remove_private_folders()
    os.write(2, f"{stopped.sentence}\n".encode())
    os._exit(stopped.status)


@contextmanager
def kept_handlers() -> Iterator[None]:
    """Restore the signal handlers afterwards, in case a library installs its own. Ray's prints a
    C++ stack trace on SIGTERM."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
