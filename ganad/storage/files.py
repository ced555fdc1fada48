"""Files at an absolute local path or at s3://bucket/key, read and written by the same functions.

Whether a path is local or on S3 is decided here; see ganad.storage.s3 for what S3 needs.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs
import pyarrow.parquet as pq

from ganad.errors import ArchiveError
from ganad.storage import s3
from ganad.storage.reasons import IrregularFileError, translated

_SCHEME = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]*)://")
_READ_AHEAD = 2**20


def is_remote(uri: str) -> bool:
    """True for s3://bucket/key."""
    return uri.startswith("s3://")


def absolute(uri: str) -> str:
    """What a user typed -> an absolute path or s3://bucket/key, without a trailing slash.

    Raises ArchiveError for an empty path, for one that is not UTF-8 or holds a null byte, for any
    other scheme, and for keys in the address.
    """
    if not uri.strip():
        raise ArchiveError(
            f"{uri!r} is an empty path: name a file, a folder or s3://bucket/prefix (is a variable "
            f"of the script not set?)"
        )
    try:
        uri.encode()
    except UnicodeEncodeError as error:
        raise ArchiveError(f"{printable(uri)}: the name is not UTF-8; rename it") from error
    if "\0" in uri:
        raise ArchiveError(f"{uri!r}: no file has a null byte in its name; correct the path")
    scheme = _SCHEME.match(uri)
    if scheme is None:
        return os.path.abspath(os.path.expanduser(uri))
    if scheme[1] == "file":
        return os.path.abspath(uri[len("file://") :])
    if scheme[1] != "s3" or uri == "s3://":
        raise ArchiveError(f"{uri}: cannot be read; give a local path or s3://bucket/prefix")
    bucket, _ = s3.split_key(uri)
    if "@" in bucket:
        shown = uri.replace(bucket, "…@" + bucket.rpartition("@")[2], 1)
        raise ArchiveError(
            f"{shown}: keys in an address end up in logs and models; leave them out and set "
            f"AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    return uri.rstrip("/")


def printable(name: str) -> str:
    """A file name with escapes for the bytes in it that are not UTF-8."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def join(base: str, *parts: str) -> str:
    """A path or key below base."""
    return "/".join([base.rstrip("/"), *(part.strip("/") for part in parts)])


def filesystem(uri: str) -> fsspec.AbstractFileSystem:
    """The fsspec filesystem of uri."""
    return s3.client() if is_remote(uri) else fsspec.filesystem("file")


def arrow_filesystem(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """The pyarrow filesystem of uri, and the path there."""
    if not is_remote(uri):
        return pyarrow.fs.LocalFileSystem(), uri
    handler = pyarrow.fs.FSSpecHandler(filesystem(uri))
    return pyarrow.fs.PyFileSystem(handler), uri.removeprefix("s3://")


def read(uri: str, offset: int | None = None, size: int | None = None) -> bytes:
    """Bytes of a file, or size bytes from offset (fewer if the file ends before).

    Raises what the filesystem raises; see read_bytes and ganad.storage.reasons.
    """
    if is_remote(uri):
        return s3.read(uri, offset, size)
    with _open_regular(uri) as file:
        file.seek(offset or 0)
        if size is None:
            return file.read()
        there = os.fstat(file.fileno()).st_size - file.tell()
        # Python reserves memory for as many bytes as are asked for, also of a small file.
        return file.read(min(size, there) if there > 0 else size)


def _open_regular(path: str) -> BinaryIO:
    """Opens without waiting for the other end of a pipe. Raises OSError, also for folders, pipes
    and devices, which may have no end."""
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise IrregularFileError(path)
    return os.fdopen(number, "rb")


def read_bytes(uri: str, offset: int | None = None, size: int | None = None) -> bytes:
    """Bytes of a file, or size bytes from offset. Raises ArchiveError."""
    with translated(uri):
        return read(uri, offset, size)


def open_stream(uri: str) -> BinaryIO:
    """A file to be read from its beginning on. Raises what the filesystem raises."""
    if not is_remote(uri):
        return _open_regular(uri)
    opened = s3.client().open(uri, "rb", block_size=_READ_AHEAD, cache_type="readahead")
    return cast(BinaryIO, opened)


def open_input(uri: str) -> pa.NativeFile:
    """A file for pyarrow to read ranges from. Raises what the filesystem raises."""
    if not is_remote(uri):
        if not stat.S_ISREG(os.stat(uri).st_mode):
            raise IrregularFileError(uri)
        return pyarrow.fs.LocalFileSystem().open_input_file(uri)
    # pyarrow's own access through fsspec mistakes a server that is away for a missing file.
    size = size_of(uri)
    if size is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), uri)
    return pa.PythonFile(io.BufferedReader(s3.ObjectFile(uri, size), _READ_AHEAD), mode="r")


def read_table(
    uri: str, columns: Sequence[str] | None = None, filters: pc.Expression | None = None
) -> pa.Table:
    """A Parquet file, or some of its columns and rows. Raises ArchiveError, and pyarrow's
    ArrowInvalid for a damaged file."""
    with translated(uri), open_input(uri) as file:
        return pq.read_table(file, columns=columns and list(columns), filters=filters)


def write_table(uri: str, table: pa.Table, **options: Any) -> None:
    """Write a Parquet file that appears complete or not at all. options go to pyarrow's
    write_table; the compression is zstd unless they say otherwise. Raises ArchiveError."""
    write_bytes(uri, parquet_bytes(table, **options))


def parquet_bytes(table: pa.Table, **options: Any) -> bytes:
    """The Parquet file that write_table writes."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **{"compression": "zstd", **options})
    return buffer.getvalue()


def write_bytes(uri: str, data: bytes) -> None:
    """Write a whole file that appears complete or not at all. Raises ArchiveError."""
    with translated(uri):
        if is_remote(uri):
            s3.client().pipe_file(uri, data)
            return
        path = Path(uri)
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            fresh.write_bytes(data)
            os.replace(fresh, path)
        finally:
            fresh.unlink(missing_ok=True)


def read_json(uri: str) -> Any:
    """A JSON file. Raises ArchiveError, also for text that is not JSON."""
    try:
        return json.loads(read_bytes(uri))
    except (ValueError, RecursionError) as error:
        raise ArchiveError(f"{uri}: is not JSON; it was damaged or is another file") from error


def write_json(uri: str, value: Any) -> None:
    """Write a JSON file, atomically. Raises ArchiveError."""
    write_bytes(uri, json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n")


def remove(uri: str) -> None:
    """Remove one file, if it exists. Raises ArchiveError."""
    with translated(uri):
        if is_remote(uri):
            s3.remove(uri)
        else:
            Path(uri).unlink(missing_ok=True)


def remove_folder(uri: str) -> None:
    """Remove a folder with everything in it, if it exists. Raises ArchiveError."""
    with translated(uri):
        if not is_remote(uri):
            if os.path.isdir(uri):
                shutil.rmtree(uri)
        elif exists(uri):
            s3.client().rm(uri, recursive=True)


def exists(uri: str) -> bool:
    """True for a file or a folder (on S3: a key, or a prefix that has keys)."""
    if not is_remote(uri):
        return os.path.exists(uri)
    return size_of(uri) is not None or is_folder(uri)


def is_folder(uri: str) -> bool:
    """True for a folder (on S3: a prefix that has keys). Raises ArchiveError."""
    if not is_remote(uri):
        return os.path.isdir(uri)
    return any(True for _ in s3.pages(uri, keys=1))


def size_of(uri: str) -> int | None:
    """Bytes of a file; None if there is no such file. Raises ArchiveError."""
    with translated(uri):
        try:
            if is_remote(uri):
                return s3.size_of(uri)
            return os.stat(uri).st_size if os.path.isfile(uri) else None
        except FileNotFoundError:
            return None


def list_names(folder: str) -> list[str]:
    """Sorted names of the files and folders in a folder; [] if there is no such folder."""
    return [name for name, _ in list_entries(folder)]


def list_folders(folder: str) -> list[str]:
    """Sorted names of the folders in a folder; [] if there is no such folder."""
    return [name for name, is_folder in list_entries(folder) if is_folder]


def list_entries(folder: str) -> list[tuple[str, bool]]:
    """(name, is a folder) of everything in a folder, sorted; [] if there is no such folder."""
    return sorted(_entries(folder))


def _entries(folder: str) -> Iterator[tuple[str, bool]]:
    if is_remote(folder):
        for files, folders in s3.pages(folder, flat=False):
            yield from ((key.rpartition("/")[2], False) for key, _ in files)
            yield from ((key.rpartition("/")[2], True) for key in folders)
        return
    with translated(folder):
        try:
            with os.scandir(folder) as entries:
                yield from ((entry.name, entry.is_dir()) for entry in entries)
        except (FileNotFoundError, NotADirectoryError):
            return


@contextmanager
def scratch_folder(beside: str, prefix: str) -> Iterator[Path]:
    """A local folder for temporary files, removed at the end. It lies in the folder `beside` if
    that is local, because it may need more room than /tmp has. Raises ArchiveError."""
    parent = None if is_remote(beside) else beside
    with translated(beside):
        if parent is not None:
            Path(parent).mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=prefix, dir=parent)
    with folder as path:
        yield Path(path)
