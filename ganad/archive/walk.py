"""Files below a folder, local or on S3, one at a time: no listing is ever held whole."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from ganad.archive.patterns import Pattern
from ganad.storage import files as storage
from ganad.storage import s3
from ganad.storage.reasons import translated

GROUND_TRUTH = "ground_truth"
"""Folders of this name hold masks, not images to score."""


class File(NamedTuple):
    """path: below the folder, "/" between names. size: bytes; None for a link to nothing.
    is_regular: False for pipes, sockets and devices."""

    path: str
    size: int | None
    is_regular: bool = True


def is_hidden(name: str) -> bool:
    """Names that begin with a dot: files that programs keep for themselves."""
    return name.startswith(".") and name not in (".", "..")


def walk(folder: str, pattern: Pattern) -> Iterator[File]:
    """The files below folder that the pattern matches; hidden ones and masks left out.

    Local folders in the order of their sorted names, S3 in the order of its keys. Raises
    ArchiveError for what cannot be listed.
    """
    if storage.is_remote(folder):
        return _walk_remote(folder, pattern)
    return _walk_local(folder, pattern)


def _walk_local(folder: str, pattern: Pattern) -> Iterator[File]:
    # A stack instead of recursion: of each open folder its names to come, its path below `folder`,
    # the pattern's states, and the folders above it, by which links that lead back are known.
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
                yield _file(path, place)
        elif name != GROUND_TRUTH and (its := _identity(place)) not in above:
            stack.append((iter(_entries(place)), f"{path}/", reached, above | {its}))


def _entries(folder: str) -> list[tuple[str, bool]]:
    """(name, is a folder), sorted. Of a folder only this is held in memory."""
    with translated(folder), os.scandir(folder) as entries:
        return sorted((entry.name, _is_folder(entry)) for entry in entries)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _identity(folder: str) -> tuple[int, int]:
    with translated(folder):
        status = os.stat(folder)
        return status.st_dev, status.st_ino


def _file(path: str, place: str) -> File:
    try:
        status = os.stat(place)
    except OSError:  # a link to nothing, or a file that went away
        return File(path, None)
    # Of a pipe or a socket no end would come.
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
