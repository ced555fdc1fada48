"""The images inside a .tar shard: where each one's bytes begin and end, found from the headers.

Nothing is ever extracted, so a member's name is only text: no path in it leads anywhere.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, cast

from ganad.archive import storage
from ganad.errors import ArchiveError

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
_MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
_READ_AHEAD = 2**20  # of a shard on S3: many small members' headers in one request


class Member(NamedTuple):
    """name: as in the shard. offset, size: bytes in the shard. is_regular: no link or folder."""

    name: str
    offset: int
    size: int
    is_regular: bool


def members(uri: str) -> Iterator[Member]:
    """The members of a shard, folders left out, in the shard's order.

    Raises ArchiveError for a shard that is compressed, damaged or cut off; what came before has
    been yielded then.
    """
    with storage.in_words(uri), _open(uri) as file:
        if file.read(6).startswith(_MAGIC):
            raise compressed(uri)
        file.seek(0)
        try:
            yield from _members(file)
        except tarfile.TarError as error:
            raise ArchiveError(
                f"{uri}: is damaged or no tar file ({error}); make the shard again"
            ) from error


def compressed(uri: str) -> ArchiveError:
    """For shards whose members have no place of their own to read from."""
    return ArchiveError(
        f"{uri}: is compressed, and single images cannot be read out of it; decompress it to a "
        f"plain .tar (images hardly shrink anyway)"
    )


def _open(uri: str) -> BinaryIO:
    if not storage.is_remote(uri):
        return open(uri, "rb")
    opened = storage.filesystem(uri).open(uri, "rb", block_size=_READ_AHEAD, cache_type="readahead")
    return cast(BinaryIO, opened)


def _members(file: BinaryIO) -> Iterator[Member]:
    with tarfile.open(fileobj=file, mode="r:", encoding="utf-8") as tar:
        while (member := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # or it would keep every one
            if member.isdir():
                continue
            # Names that are no UTF-8 get escapes: they are shown, never opened.
            raw = member.name.encode("utf-8", "surrogateescape")
            name = raw.decode("utf-8", "backslashreplace")
            is_regular = member.isreg() and not member.issparse()
            yield Member(name, member.offset_data, member.size, is_regular)
        # A header that is no header ends the listing as quietly as the end of the archive does.
        file.seek(tar.offset)
        if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError(f"no header at byte {tar.offset}")
