"""What only S3 needs: the client, addresses, listings page by page, and objects as files.

Credentials and the endpoint come from the environment, as in every AWS program (AWS_PROFILE,
AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, instance roles). They are never arguments, so they cannot end
up in a log or in a pickled object.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import fsspec

from ganad.storage.reasons import code_of, translated

_KEYS_PER_PAGE = 1000  # the most that S3 gives
ATTEMPTS = 3
"""Attempts of a request. They take about two seconds if nothing answers, so a typing error in the
endpoint is reported at once; ganad.storage.retry waits for long outages."""


def client() -> fsspec.AbstractFileSystem:
    """The fsspec filesystem of S3. Connections are shared; listings are not cached, so that new
    files are seen."""
    # Only the AWS variables are read: another thread may be removing any of the others.
    names = sorted(name for name in os.environ if name.startswith("AWS_"))
    settings = tuple((name, os.environ[name]) for name in names)
    return _client(os.getpid(), settings)


@lru_cache(maxsize=4)
def _client(pid: int, settings: tuple[tuple[str, str], ...]) -> fsspec.AbstractFileSystem:
    # Cached by process, because connections do not survive a fork, and by the settings in use.
    filesystem = fsspec.filesystem(
        "s3",
        skip_instance_cache=True,
        use_listings_cache=False,
        config_kwargs={
            "retries": {"mode": "standard", "max_attempts": ATTEMPTS},
            "connect_timeout": 10,
            "read_timeout": 20,
        },
    )
    # Its own attempts multiply with those above: by default, minutes on a dead network.
    filesystem.retries = max(1, ATTEMPTS - 1)
    return filesystem


def split_key(uri: str) -> tuple[str, str]:
    """s3://bucket/a/b -> ("bucket", "a/b")."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def size_of(uri: str) -> int | None:
    """Bytes of an object; None without a key in uri. Raises FileNotFoundError."""
    bucket, key = split_key(uri)
    if not key:
        return None
    head = client().call_s3("head_object", Bucket=bucket, Key=key)
    return int(head["ContentLength"])


def read(uri: str, offset: int | None = None, size: int | None = None) -> bytes:
    """Bytes of an object, or size bytes from offset. Raises what the client raises."""
    if offset is None and size is None:
        # More concurrency would first ask for the size: two requests for every image.
        return bytes(client().cat_file(uri, max_concurrency=1))
    if size == 0:
        return b""
    start = offset or 0
    end = None if size is None else start + size
    try:
        return bytes(client().cat_file(uri, start=start, end=end))
    except OSError as error:
        if code_of(error) in {"InvalidRange", "416"}:
            return b""  # the object ends before, or is empty
        raise


def remove(uri: str) -> None:
    """Remove one object, if it exists. Raises what the client raises."""
    bucket, key = split_key(uri)
    client().call_s3("delete_object", Bucket=bucket, Key=key)


def pages(
    folder: str, *, start: str = "", flat: bool = True, keys: int = _KEYS_PER_PAGE
) -> Iterator[tuple[list[tuple[str, int]], list[str]]]:
    """What lies below a prefix, page by page: ([(key, size)], [sub-folder keys]).

    start: only keys that begin with this, after the folder. flat: keys at any depth and no
    sub-folders. Keys of other folders, the folder's own marker and empty pages are left out.
    Raises ArchiveError.
    """
    bucket, key = split_key(folder)
    prefix = f"{key}/" if key else ""
    request = {"Bucket": bucket, "Prefix": prefix + start, "MaxKeys": keys}
    if not flat:
        request["Delimiter"] = "/"
    while True:
        with translated(folder):
            page = client().call_s3("list_objects_v2", **request)
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
        request["ContinuationToken"] = page["NextContinuationToken"]


class ObjectFile(io.RawIOBase):
    """An object as a file that can be read and sought in; every read is one request."""

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
