"""Where bytes lie: an absolute local path or s3://bucket/key, read and written the same way.

Credentials and endpoint of S3 come from the environment, as every AWS program takes them
(AWS_PROFILE, AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, instance roles): none is ever an argument,
so none can end in a log or in a pickled object.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs
import pyarrow.parquet as pq

from ganad.errors import ArchiveError
from ganad.storage.reasons import reason_of

_SCHEME = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]*)://")
_READ_AHEAD = 2**20
_KEYS_PER_PAGE = 1000  # the most that S3 gives


def is_remote(uri: str) -> bool:
    """True for s3://bucket/key."""
    return uri.startswith("s3://")


def absolute(uri: str) -> str:
    """What a user typed -> an absolute path or s3://bucket/key, without a trailing slash.

    Raises ArchiveError for any other scheme, and for keys in the address.
    """
    scheme = _SCHEME.match(uri)
    if scheme is None:
        return os.path.abspath(os.path.expanduser(uri))
    if scheme[1] == "file":
        return os.path.abspath(uri[len("file://") :])
    if scheme[1] != "s3" or uri == "s3://":
        raise ArchiveError(f"{uri}: cannot be read; give a local path or s3://bucket/prefix")
    bucket, _ = split_key(uri)
    if "@" in bucket:
        shown = uri.replace(bucket, "…@" + bucket.rpartition("@")[2], 1)
        raise ArchiveError(
            f"{shown}: keys in an address end in logs and models; leave them out and set "
            f"AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    return uri.rstrip("/")


def join(base: str, *parts: str) -> str:
    """A path or key below base."""
    return "/".join([base.rstrip("/"), *(part.strip("/") for part in parts)])


def split_key(uri: str) -> tuple[str, str]:
    """s3://bucket/a/b -> ("bucket", "a/b")."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def filesystem(uri: str) -> fsspec.AbstractFileSystem:
    """The fsspec filesystem that uri lies on. Connections are shared; nothing is listed twice
    from a cache, so a file that appeared is seen."""
    if not is_remote(uri):
        return fsspec.filesystem("file")
    # Of other variables not even the values are looked at: another thread may just remove one.
    names = sorted(name for name in os.environ if name.startswith("AWS_"))
    settings = tuple((name, os.environ[name]) for name in names)
    return _s3(os.getpid(), settings)


@lru_cache(maxsize=4)
def _s3(pid: int, settings: tuple[tuple[str, str], ...]) -> fsspec.AbstractFileSystem:
    # Keyed by process, as connections do not survive a fork, and by the settings in use.
    filesystem = fsspec.filesystem(
        "s3",
        skip_instance_cache=True,
        use_listings_cache=False,
        # Three attempts take about two seconds where nothing answers: a typing error in the
        # endpoint is told at once. Long outages are waited for in ganad.images.load.
        config_kwargs={
            "retries": {"mode": "standard", "max_attempts": 3},
            "connect_timeout": 10,
            "read_timeout": 20,
        },
    )
    # Its own attempts multiply with those above: with the default a dead network took minutes.
    filesystem.retries = 2
    return filesystem


def arrow_filesystem(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """The pyarrow filesystem that uri lies on, and the path there."""
    if not is_remote(uri):
        return pyarrow.fs.LocalFileSystem(), uri
    handler = pyarrow.fs.FSSpecHandler(filesystem(uri))
    return pyarrow.fs.PyFileSystem(handler), uri.removeprefix("s3://")


@contextmanager
def in_words(uri: str) -> Iterator[None]:
    """Turn what storage raises into an ArchiveError that begins with uri."""
    try:
        yield
    except Exception as error:
        reason = reason_of(error)
        if reason is None:
            raise
        raise ArchiveError(f"{uri}: {reason.text}") from error


def read(uri: str, offset: int | None = None, size: int | None = None) -> bytes:
    """Bytes of a file, or size bytes from offset (fewer where the file ends before).

    Raises what the filesystem raises; see read_bytes and ganad.storage.reasons.
    """
    if not is_remote(uri):
        with open(uri, "rb") as file:
            file.seek(offset or 0)
            return file.read(-1 if size is None else size)
    if offset is None and size is None:
        # More concurrency would first ask for the size: two requests for every image.
        return bytes(filesystem(uri).cat_file(uri, max_concurrency=1))
    if size == 0:
        return b""
    start = offset or 0
    return bytes(
        filesystem(uri).cat_file(uri, start=start, end=None if size is None else start + size)
    )


def read_bytes(uri: str, offset: int | None = None, size: int | None = None) -> bytes:
    """Bytes of a file, or size bytes from offset. Raises ArchiveError."""
    with in_words(uri):
        return read(uri, offset, size)


def open_input(uri: str) -> pa.NativeFile:
    """A file for pyarrow to read from, ranges as it asks for them.

    pyarrow's own way through fsspec takes a server that is away for a moment for a file that is
    not there. Raises what the filesystem raises.
    """
    if not is_remote(uri):
        return pyarrow.fs.LocalFileSystem().open_input_file(uri)
    size = size_of(uri)
    if size is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), uri)
    return pa.PythonFile(io.BufferedReader(_Ranges(uri, size), _READ_AHEAD), mode="r")


def read_table(
    uri: str, columns: Sequence[str] | None = None, filters: pc.Expression | None = None
) -> pa.Table:
    """A Parquet file, or some of its columns and rows. Raises ArchiveError, and pyarrow's
    ArrowInvalid for a file that is damaged."""
    with in_words(uri), open_input(uri) as file:
        return pq.read_table(file, columns=columns and list(columns), filters=filters)


def write_table(uri: str, table: pa.Table, **options: Any) -> None:
    """Write a Parquet file that appears complete or not at all. options go to pyarrow's
    write_table; the compression is zstd unless they say otherwise. Raises ArchiveError."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **{"compression": "zstd", **options})
    write_bytes(uri, buffer.getvalue())


class _Ranges(io.RawIOBase):
    """An object on S3 as a file."""

    def __init__(self, uri: str, size: int) -> None:
        self.uri, self.size, self.position = uri, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.size}[whence]
        self.position = start + offset
        return self.position

    def readinto(self, buffer: Any) -> int:
        num = min(len(buffer), self.size - self.position)
        if num <= 0:
            return 0
        data = read(self.uri, self.position, num)
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)


def write_bytes(uri: str, data: bytes) -> None:
    """Write a whole file that appears complete or not at all. Raises ArchiveError."""
    with in_words(uri):
        if is_remote(uri):
            filesystem(uri).pipe_file(uri, data)
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
    """A JSON file. Raises ArchiveError, also for text that is no JSON."""
    try:
        return json.loads(read_bytes(uri))
    except ValueError as error:
        raise ArchiveError(f"{uri}: is not JSON; it was damaged or is another file") from error


def write_json(uri: str, value: Any) -> None:
    """Write a JSON file, atomically. Raises ArchiveError."""
    write_bytes(uri, json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n")


def remove(uri: str) -> None:
    """Remove one file; nothing happens where there is none. Raises ArchiveError."""
    with in_words(uri):
        if is_remote(uri):
            bucket, key = split_key(uri)
            filesystem(uri).call_s3("delete_object", Bucket=bucket, Key=key)
        else:
            Path(uri).unlink(missing_ok=True)


def remove_folder(uri: str) -> None:
    """Remove a folder and all in it; nothing happens where there is none. Raises ArchiveError."""
    with in_words(uri):
        if not is_remote(uri):
            if os.path.isdir(uri):
                shutil.rmtree(uri)
        elif exists(uri):
            filesystem(uri).rm(uri, recursive=True)


def exists(uri: str) -> bool:
    """Whether uri is a file or a folder (on S3: a key, or a prefix that has keys)."""
    if not is_remote(uri):
        return os.path.exists(uri)
    return size_of(uri) is not None or any(True for _ in pages(uri, keys=1))


def size_of(uri: str) -> int | None:
    """Bytes of a file; None where there is no such file. Raises ArchiveError."""
    with in_words(uri):
        try:
            if not is_remote(uri):
                return os.stat(uri).st_size if os.path.isfile(uri) else None
            bucket, key = split_key(uri)
            if not key:
                return None
            head = filesystem(uri).call_s3("head_object", Bucket=bucket, Key=key)
            return int(head["ContentLength"])
        except FileNotFoundError:
            return None


def pages(
    folder: str, *, start: str = "", flat: bool = True, keys: int = _KEYS_PER_PAGE
) -> Iterator[tuple[list[tuple[str, int]], list[str]]]:
    """What lies below an S3 folder, page by page: ([(key, size)], [sub-folder keys]).

    start: only keys that begin so, after the folder. flat: every key at any depth and no
    sub-folders. Keys of other folders and the folder's own marker are left out, and so are
    empty pages. Raises ArchiveError.
    """
    bucket, key = split_key(folder)
    prefix = f"{key}/" if key else ""
    asked = {"Bucket": bucket, "Prefix": prefix + start, "MaxKeys": keys}
    if not flat:
        asked["Delimiter"] = "/"
    while True:
        with in_words(folder):
            page = filesystem(folder).call_s3("list_objects_v2", **asked)
        files = [
            (item["Key"], int(item["Size"]))
            for item in page.get("Contents", [])
            if not item["Key"].endswith("/")
        ]
        folders = [item["Prefix"].rstrip("/") for item in page.get("CommonPrefixes", [])]
        if files or folders:
            yield files, folders
        if not page.get("IsTruncated"):
            return
        asked["ContinuationToken"] = page["NextContinuationToken"]


def list_names(folder: str) -> list[str]:
    """Names of the files and folders in a folder, sorted; [] where there is no such folder."""
    return sorted(name for name, _ in _entries(folder))


def list_folders(folder: str) -> list[str]:
    """Names of the folders in a folder, sorted; [] where there is no such folder."""
    return sorted(name for name, is_folder in _entries(folder) if is_folder)


def _entries(folder: str) -> Iterator[tuple[str, bool]]:
    if is_remote(folder):
        for files, folders in pages(folder, flat=False):
            yield from ((key.rpartition("/")[2], False) for key, _ in files)
            yield from ((key.rpartition("/")[2], True) for key in folders)
        return
    with in_words(folder):
        try:
            with os.scandir(folder) as entries:
                yield from ((entry.name, entry.is_dir()) for entry in entries)
        except (FileNotFoundError, NotADirectoryError):
            return
