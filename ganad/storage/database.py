"""DuckDB with limits: memory and spill are bounded, Ctrl-C ends a query, nothing is left on disk.

A query larger than its memory spills into a folder that only its user can read and that is removed
when the connection is closed, when the process ends, and after a killed process by the next one.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, TypeVar

import duckdb
from pydantic import ByteSize, TypeAdapter, ValidationError

from ganad.errors import ConfigError
from ganad.storage.private import PrivateFolder

T = TypeVar("T")
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
        self.spill = PrivateFolder("ganad-spill-") if spill_to is None else None
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
