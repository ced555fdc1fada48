"""The images inside a .tar shard: where each one's bytes begin and end, found from the headers.

Nothing is ever extracted, so a member's name is only text: no path in it leads anywhere.
"""

from __future__ import annotations

import tarfile
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO, NamedTuple, TypeVar

from ganad.errors import ArchiveError
from ganad.storage import files as storage
from ganad.storage.reasons import translated

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
_MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
_SHARDS_AT_ONCE = 4  # whose lists are in memory: a quarter of a kilobyte for each member

T = TypeVar("T")


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
    with translated(uri), storage.open_stream(uri) as file:
        if file.read(6).startswith(_MAGIC):
            raise compressed(uri)
        file.seek(0)
        try:
            yield from _members(file)
        except tarfile.TarError as error:
            raise ArchiveError(
                f"{uri}: is damaged or no tar file ({error}); make the shard again"
            ) from error


class Listed(NamedTuple):
    """All members of a shard: of several with one name the last, as for tar, in the place of the
    first."""

    members: list[Member]
    num_repeated: int
    """Members left out for that."""


def listed(uri: str, is_over: Callable[[], bool] = lambda: False) -> Listed:
    """Raises ArchiveError as members() does. is_over: whether nobody waits for it any more."""
    latest: dict[str, Member] = {}
    num = 0
    for member in members(uri):
        if is_over():
            break
        latest[member.name] = member
        num += 1
    return Listed(list(latest.values()), num - len(latest))


def listed_ahead(
    items: Iterable[tuple[T, str | None]],
) -> Generator[tuple[T, Listed | None], None, None]:
    """Each item, with what its shard holds if it names one. The next few shards are read meanwhile:
    to learn what a shard of small images on S3 holds, all of it has to come over the network.

    Close it (see contextlib.closing) where it may be left before its end.
    """
    over = threading.Event()
    pool = ThreadPoolExecutor(_SHARDS_AT_ONCE, thread_name_prefix="ganad-shards")
    waiting: deque[tuple[T, Future[Listed] | None]] = deque()
    num_shards = 0
    try:
        for item, uri in items:
            waiting.append((item, pool.submit(listed, uri, over.is_set) if uri else None))
            num_shards += uri is not None
            while waiting and (waiting[0][1] is None or num_shards > _SHARDS_AT_ONCE):
                first, shard = waiting.popleft()
                num_shards -= shard is not None
                yield first, shard.result() if shard else None
        for first, shard in waiting:
            yield first, shard.result() if shard else None
    finally:
        over.set()
        pool.shutdown(wait=True, cancel_futures=True)


def compressed(uri: str) -> ArchiveError:
    """For shards whose members have no place of their own to read from."""
    return ArchiveError(
        f"{uri}: is compressed, and single images cannot be read out of it; decompress it to a "
        f"plain .tar (images hardly shrink anyway)"
    )


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
