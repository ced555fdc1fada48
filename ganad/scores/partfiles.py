"""A read-only filesystem for DuckDB that holds only the files a query may read.

Giving DuckDB access to the table's folder would let COPY write into it. This filesystem cannot be
written, and serves local tables and tables on S3 alike.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cachetools import LRUCache
from fsspec.spec import AbstractFileSystem

from ganad.errors import ArchiveError
from ganad.scores.checksums import CheckedFile, Damaged
from ganad.storage import files as storage
from ganad.storage.private import PrivateFolder

NUM_KEPT = 256
"""Footers in memory where there is one query; each takes some kilobytes."""


@dataclass(frozen=True)
class PartFile:
    """Location and size of a file. The size comes from the listing, because DuckDB asks for it
    several times per query."""

    uri: str
    size: int
    checked: bool = True
    """True for files that ganad score wrote, whose checksums are compared."""

    def open(self) -> CheckedFile | PlainFile:
        return CheckedFile(self.uri, self.size) if self.checked else PlainFile(self.uri)


@dataclass(frozen=True)
class PlainFile:
    """A file that ganad did not write, read without checksums."""

    uri: str

    def read(self, offset: int, size: int) -> bytes:
        """Read `size` bytes, or fewer at the end of the file. Raises ArchiveError."""
        return storage.read_bytes(self.uri, offset, size)


class PartFiles(AbstractFileSystem):
    """The files by name; DuckDB reads each as scores://name. asked_once: by a single query."""

    protocol = "scores"
    cachable = False

    def __init__(
        self,
        parts: Mapping[str, PartFile],
        spill: PrivateFolder | None = None,
        *,
        asked_once: bool = False,
    ) -> None:
        super().__init__()
        self.parts = dict(parts)
        self.spill = spill
        """DuckDB's temporary folder. A reference is held here because this object lives exactly as
        long as the connection."""
        self.failure: ArchiveError | None = None
        """The original error; DuckDB's own holds a whole traceback as text."""
        self.damaged: str | None = None
        """Name of a damaged file."""
        # DuckDB opens a file several times per query, most often at once; its footer is read and
        # verified the first time.
        num = NUM_KEPT if asked_once else math.inf
        self._open_files: LRUCache[str, CheckedFile | PlainFile] = LRUCache(num)
        self._lock = threading.Lock()

    @classmethod
    def uri(cls, name: str) -> str:
        """The name under which DuckDB reads a file."""
        return f"{cls.protocol}://{name}"

    def _open(self, path: str, mode: str = "rb", **options: Any) -> _OpenPart:
        if mode != "rb":
            raise PermissionError("a score table can only be read")
        name = self._strip_protocol(path)
        return _OpenPart(self, name, self._opened(name))

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        return {"name": path, "size": self._part(path).size, "type": "file"}

    @contextmanager
    def noting_failure(self, name: str) -> Iterator[None]:
        try:
            yield
        except Damaged:
            self.damaged = name
            raise
        except ArchiveError as error:
            # The traceback is dropped: its frames would keep DuckDB's objects alive in a cycle.
            self.failure = ArchiveError(str(error))
            if error.__cause__ is not None:
                self.failure.__cause__ = error.__cause__.with_traceback(None)
            raise

    def modified(self, path: str) -> datetime:
        # DuckDB asks to validate its cache, and a finished part does not change.
        return datetime.fromtimestamp(0, UTC)

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:
        raise PermissionError("a score table cannot be listed")

    def _opened(self, name: str) -> CheckedFile | PlainFile:
        with self._lock:
            if name not in self._open_files:
                self._open_files[name] = self._part(name).open()
            return self._open_files[name]

    def _part(self, path: str) -> PartFile:
        try:
            return self.parts[self._strip_protocol(path)]
        except KeyError:
            raise FileNotFoundError(f"{path} is not a part of this score table") from None


class _OpenPart:
    """One open file. DuckDB's threads share the handle, and each seeks and then reads, so every
    thread has its own position."""

    def __init__(self, files: PartFiles, name: str, file: CheckedFile | PlainFile) -> None:
        self.files, self.name, self.file = files, name, file
        self.thread = threading.local()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        assert whence == os.SEEK_SET
        self.thread.offset = offset
        return offset

    def read(self, size: int) -> bytes:
        with self.files.noting_failure(self.name):
            data = self.file.read(self.tell(), size)
        self.thread.offset = self.tell() + len(data)
        return data

    def tell(self) -> int:
        return getattr(self.thread, "offset", 0)

    def close(self) -> None:
        pass
