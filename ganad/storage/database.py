"""DuckDB with limits: memory and spill are bounded, Ctrl-C ends a query, nothing is left on disk.

A query larger than its memory spills into a folder that only its user can read. The folder goes
when the connection is closed and when the process ends. One that a killed process left behind is
found by its lock, which died with the process, and is removed when the next connection is opened.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import duckdb
from pydantic import ByteSize, TypeAdapter, ValidationError

from ganad.errors import ConfigError

T = TypeVar("T")
_PREFIX = "ganad-spill-"
_LOCK = "lock"
_FRESH_S = 60
"""A folder without a lock that is younger than this may be about to get one."""
_INTERRUPT_S = 0.5
"""Seconds that a query gets to notice that it was interrupted."""


@dataclass(frozen=True)
class Limits:
    """Bytes of memory and of disk that queries may take; None: half of the machine's memory, half
    of the free disk."""

    memory: int | None = None
    spill: int | None = None

    @classmethod
    def parse(cls, memory: str | None, spill: str | None) -> Limits:
        """From what a user typed, such as 4GB. Raises ConfigError."""
        return cls(_bytes("--memory", memory), _bytes("--spill", spill))


def _bytes(flag: str, typed: str | None) -> int | None:
    if typed is None:
        return None
    try:
        size = TypeAdapter(ByteSize).validate_python(typed)
    except ValidationError:
        raise ConfigError(f"{flag} {typed} is not a size: give a number such as 4GB") from None
    if size < 2**20 and size > 0 or (size == 0 and flag == "--memory"):
        raise ConfigError(f"{flag} {typed} is too little for a query: give 100MB or more")
    return int(size)


class Database:
    """A DuckDB connection: in memory, or in the file `place`.

    spill_to: a folder of the caller's for what does not fit into memory; without one a private
    folder is made, and where that cannot be, nothing is spilled. config: further settings of
    DuckDB. Close it after use.
    """

    def __init__(
        self,
        place: str = ":memory:",
        limits: Limits | None = None,
        spill_to: str | None = None,
        **config: Any,
    ) -> None:
        limits = limits or Limits()
        self.spill = SpillFolder() if spill_to is None else None
        """Removed when nobody refers to it any more: whoever keeps the connection keeps this."""
        target = spill_to if self.spill is None else self.spill.place
        if target:
            spill = shutil.disk_usage(target).free // 2 if limits.spill is None else limits.spill
        # Settings go through the config, which takes any text: nothing is pasted into SQL.
        self.connection = duckdb.connect(
            place,
            config={
                "memory_limit": "50%" if limits.memory is None else f"{limits.memory}B",
                "max_temp_directory_size": f"{spill if target else 0}B",
                "temp_directory": target or "",
                **config,
            },
        )
        self.connection.execute("SET enable_progress_bar = false")

    def close(self) -> None:
        """Close the connection and remove its spill folder."""
        self.connection.close()
        if self.spill is not None:
            self.spill.remove()

    def run(self, call: Callable[[], T]) -> T:
        """The result of a native call on the connection, which a signal interrupts.

        The call runs in a thread of its own: Python handles signals in the main thread, and only
        while that is not inside native code.
        """
        if threading.current_thread() is not threading.main_thread():
            return call()
        result: Future[T] = Future()

        def work() -> None:
            try:
                result.set_result(call())
            except BaseException as error:
                result.set_exception(error)

        threading.Thread(target=work, daemon=True, name="ganad-query").start()
        try:
            wait([result])
        except BaseException:
            self.connection.interrupt()
            wait([result], timeout=_INTERRUPT_S)
            raise
        return result.result()


def quoted(text: str) -> str:
    """Text as a string of SQL, quotes included."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """A name of a column or view as SQL takes any, quotes included."""
    return '"' + name.replace('"', '""') + '"'


class SpillFolder:
    """A folder that only this user can read, with a lock that dies with the process."""

    def __init__(self) -> None:
        self.place = ""
        """Empty where no folder can be made."""
        self.remove: Callable[[], object] = lambda: None
        try:
            _remove_stale()
            folder = tempfile.mkdtemp(prefix=_PREFIX)  # its mode is 0700
            lock = os.open(f"{folder}/{_LOCK}", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            return
        self.place = folder
        _folders[folder] = lock
        self.remove = weakref.finalize(self, _remove_folder, folder)


_folders: dict[str, int] = {}
"""Spill folders of this process, and the descriptors of their locks."""


def remove_spill_folders() -> None:
    """Remove the spill folders of this process, which is about to end without tidying up."""
    for folder in list(_folders):
        _remove_folder(folder)


def _remove_folder(folder: str) -> None:
    lock = _folders.pop(folder, None)
    if lock is not None:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _remove_stale() -> None:
    """Remove the folders of processes that were killed; those of other users are left alone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            facts = folder.lstat()
            if facts.st_uid == os.getuid() and not folder.is_symlink() and _is_stale(folder):
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # another process has removed it


def _is_stale(folder: Path) -> bool:
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return time.time() - folder.stat().st_mtime > _FRESH_S
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(lock)
