"""Walks the files below a folder, local or on S3, and matches them with globs.

A glob is matched folder by folder, so that the walk skips folders in which nothing can match. The
full listing is never held in memory.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

import bracex

from ganad.errors import ArchiveError
from ganad.storage import files as storage
from ganad.storage import s3
from ganad.storage.reasons import translated

GROUND_TRUTH = "ground_truth"
"""Folders of this name hold masks, not images to score."""
MAX_EXPANSIONS = 100_000
"""Maximum number of names that the braces of a source may expand to."""
_WILDCARD = re.compile(r"[*?\[]")
States = frozenset[int]
"""Positions in a pattern that a path may have reached; empty if it can no longer match."""


class File(NamedTuple):
    """path: relative to the folder, with "/" between names. size: bytes; None for a dangling link.
    is_regular: False for pipes, sockets and devices."""

    path: str
    size: int | None
    is_regular: bool = True


def is_hidden(name: str) -> bool:
    """True for names that begin with a dot."""
    return name.startswith(".") and name not in (".", "..")


# ---- Globs ---------------------------------------------------------------------------------------


def is_glob(uri: str) -> bool:
    """True if uri contains a wildcard."""
    return _WILDCARD.search(uri) is not None


def split_glob(uri: str) -> tuple[str, Pattern]:
    """The folder before the first wildcard, and the pattern below that folder."""
    parts = uri.split("/")
    first = next(i for i, part in enumerate(parts) if _WILDCARD.search(part))
    return "/".join(parts[:first]) or "/", Pattern(tuple(parts[first:]))


def expand_braces(uri: str) -> list[str]:
    """Expand `s-{000..002}.tar` and `{a,b}/*.png` as a shell does; [uri] without braces. Raises
    ArchiveError for more than MAX_EXPANSIONS names."""
    if "{" not in uri:
        return [uri]
    try:
        return list(bracex.iexpand(uri, keep_escapes=True, limit=MAX_EXPANSIONS))
    except bracex.ExpansionLimitException as error:
        raise ArchiveError(
            f"{uri}: its braces expand to more than {MAX_EXPANSIONS:,} names; use a wildcard"
        ) from error


@dataclass(frozen=True)
class Pattern:
    """A glob, split at "/". `*`, `?` and `[...]` match within one name, `**` any number of folders.
    A matching folder includes everything below it, so a pattern without parts matches every
    file."""

    parts: tuple[str, ...] = ()

    def begin(self) -> States:
        """The states before the first name."""
        return self._with_skips({0})

    def step(self, states: States, name: str) -> States:
        """The states after one more folder or file name."""
        if self.accepts(states):
            return states
        reached = set()
        for state in states:
            if self.parts[state] == "**":
                reached.add(state)
            if fnmatchcase(name, self.parts[state]):
                reached.add(state + 1)
        return self._with_skips(reached)

    def accepts(self, states: States) -> bool:
        """True if the path so far matches, and so everything below it."""
        return len(self.parts) in states

    def matches(self, names: Iterable[str]) -> bool:
        """True if the path with these names or one of its folders matches."""
        states = self.begin()
        for name in names:
            states = self.step(states, name)
        return self.accepts(states)

    @property
    def literal_start(self) -> str:
        """The literal prefix of every matching path."""
        return _WILDCARD.split(self.parts[0], maxsplit=1)[0] if self.parts else ""

    def _with_skips(self, states: set[int]) -> States:
        # `**` may match no folder at all, but a path ends with a name.
        for state in list(states):
            while state < len(self.parts) - 1 and self.parts[state] == "**":
                state += 1
                states.add(state)
        return frozenset(states)


# ---- Walks ---------------------------------------------------------------------------------------


def walk(folder: str, pattern: Pattern) -> Iterator[File]:
    """Yield the files below folder that match the pattern, without hidden files and masks.

    Local files are sorted by name, S3 objects by key. Raises ArchiveError for a folder that cannot
    be listed.
    """
    if storage.is_remote(folder):
        return _walk_remote(folder, pattern)
    return _walk_local(folder, pattern)


def _walk_local(folder: str, pattern: Pattern) -> Iterator[File]:
    # A stack instead of recursion. For each open folder it holds the remaining names, its path
    # below `folder`, the pattern's states, and the folders above it, to detect circular links.
    stack = [(iter(_entries(folder)), "", pattern.begin(), frozenset([_identity(folder)]))]
    while stack:
        entries, below, states, above = stack[-1]
        name, is_folder = next(entries, ("", False))
        if not name:
            stack.pop()
            continue
        reached = pattern.step(states, name)
        if not reached or is_hidden(name):
            continue
        path = below + name
        place = os.path.join(folder, path)
        if not is_folder:
            if pattern.accepts(reached):
                yield stat_file(path, place)
        elif name != GROUND_TRUTH and (identity := _identity(place)) not in above:
            stack.append((iter(_entries(place)), f"{path}/", reached, above | {identity}))


def _entries(folder: str) -> list[tuple[str, bool]]:
    """(name, is a folder) of every entry, sorted."""
    with translated(storage.printable(folder)), os.scandir(folder) as entries:
        return sorted((entry.name, _is_folder(entry)) for entry in entries)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that points to itself
        return False


def _identity(folder: str) -> tuple[int, int]:
    with translated(storage.printable(folder)):
        status = os.stat(folder)
        return status.st_dev, status.st_ino


def stat_file(path: str, place: str) -> File:
    """Describe a local file. path: the name to give it; place: its location."""
    try:
        status = os.stat(place)
    except OSError:  # a dangling link, or a file removed in the meantime
        return File(path, None)
    return File(path, status.st_size, is_regular=stat.S_ISREG(status.st_mode))


def _walk_remote(folder: str, pattern: Pattern) -> Iterator[File]:
    start = pattern.literal_start
    prefix = s3.split_key(folder)[1]
    skip = len(prefix) + 1 if prefix else 0
    for files, _ in s3.pages(folder, start=start):
        for key, size in files:
            names = key[skip:].split("/")
            if any(map(is_hidden, names)) or GROUND_TRUTH in names[:-1]:
                continue
            if pattern.matches(names):
                yield File(key[skip:], size)
