"""Finds the byte range of each member of a .tar shard from the headers.

Nothing is extracted, so paths in member names are only text and cannot escape anywhere.
"""

from __future__ import annotations

import posixpath
import tarfile
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO, NamedTuple, TypeVar

from ganad.errors import ArchiveError
from ganad.storage import files as storage
from ganad.storage.reasons import translated
from ganad.storage.retry import why

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
_MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
_SHARDS_AT_ONCE = 4  # their lists are held in memory, about 256 bytes per member
_MOST_LINKS = 16  # followed from one member, because a link may point to itself

T = TypeVar("T")


class Member(NamedTuple):
    """name: as in the shard. offset, size: bytes in the shard. link: for a link, the name of its
    target. error: the reason why a member other than a link has no bytes in the shard."""

    name: str
    offset: int
    size: int
    link: str | None = None
    error: str | None = None


def is_tar(name: str) -> bool:
    """True if a name ends in .tar, in any case."""
    return name.lower().endswith(".tar")


def members(uri: str) -> Iterator[Member]:
    """Yield the members of a shard in order, without folders.

    Raises ArchiveError for a compressed, damaged or truncated shard, after the members before the
    damage.
    """
    with translated(storage.printable(uri)), storage.open_stream(uri) as file:
        if file.read(6).startswith(_MAGIC):
            raise compressed(uri)
        file.seek(0)
        try:
            yield from _members(file)
        except tarfile.TarError as error:
            raise ArchiveError(
                f"{uri}: is damaged or not a tar file ({error}); make the shard again"
            ) from error


class Listed(NamedTuple):
    """All members of a shard, with links resolved. Of several members with one name it has the
    last, in the position of the first, as tar itself does."""

    members: list[Member]
    num_repeated: int = 0
    """Number of members replaced by a later one of the same name."""
    error: ArchiveError | None = None
    """The error that ended the listing early."""


def listed(uri: str, is_over: Callable[[], bool] = lambda: False) -> Listed:
    """List a shard. is_over: returns True when the result is no longer needed.

    Raises ArchiveError only for errors that do not come from the shard, such as an unreachable
    server.
    """
    latest: dict[str, Member] = {}
    num = 0
    fault = None
    try:
        for member in members(uri):
            if is_over():
                break
            if member.link is not None:
                member = _resolved(member, latest)
            latest[member.name] = member
            num += 1
    except ArchiveError as error:
        reason = why(error)
        if reason is not None and (reason.transient or reason.everywhere):
            raise
        fault = error
    # A symbolic link may point to a later member.
    final = [_resolved(member, latest) for member in latest.values()]
    return Listed(final, num - len(latest), fault)


def _resolved(link: Member, latest: dict[str, Member]) -> Member:
    """A link with the byte range of its target, if that is in the shard."""
    member = link
    for _ in range(_MOST_LINKS):
        if member.link is None:
            return member._replace(name=link.name)
        target = latest.get(member.link) or latest.get(f"./{member.link}")
        if target is None:
            return link
        member = target
    return link


def listed_ahead(
    items: Iterable[tuple[T, str | None]],
) -> Generator[tuple[T, Listed | None], None, None]:
    """Yield each item with the contents of its shard, if it names one. The next few shards are read
    in the background, because listing a shard of small images on S3 transfers all of it.

    Use contextlib.closing if the generator may be left before its end.
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
    """The error for a compressed shard, whose members cannot be read one by one."""
    return ArchiveError(
        f"{uri}: is compressed, and single images cannot be read out of it; decompress it to a "
        f"plain .tar (images hardly shrink anyway)"
    )


def _members(file: BinaryIO) -> Iterator[Member]:
    with tarfile.open(fileobj=file, mode="r:", encoding="utf-8") as tar:
        while (member := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps them all otherwise
            if not member.isdir():
                yield _member(member)
        # tarfile ends silently at an invalid header, as it does at the end of the archive.
        file.seek(tar.offset)
        if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError(f"no header at byte {tar.offset}")


def _member(member: tarfile.TarInfo) -> Member:
    name = _shown(member.name)
    if member.isreg() and not member.issparse():
        return Member(name, member.offset_data, member.size)
    if member.islnk():  # target relative to the root
        link, error = _shown(posixpath.normpath(member.linkname)), "is a link to {link}"
    elif member.issym():  # target relative to its own folder
        target = posixpath.join(posixpath.dirname(member.name), member.linkname)
        link, error = _shown(posixpath.normpath(target)), "is a link to {link}"
    elif member.issparse():
        return Member(name, 0, 0, None, "is stored as a sparse file; make the shard without -S")
    else:
        return Member(name, 0, 0, None, "is a pipe or a device, not a file")
    error = error.format(link=link) + ", which is not in the shard; make the shard with -h"
    return Member(name, 0, 0, link, error)


def _shown(name: str) -> str:
    """A printable name, with escapes for bytes that are not UTF-8."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
