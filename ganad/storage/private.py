"""Temporary folders that only the user of this process can read, and that end with it.

A folder goes when nobody refers to it any more and when the process ends. One that a killed process
left behind is found by its lock, which died with the process, and is removed when the next folder
of its kind is made.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable
from pathlib import Path

_LOCK = "lock"
_FRESH_S = 60
"""A folder without a lock that is younger than this may be about to get one."""


class PrivateFolder:
    """A folder with a name that begins with prefix, in the folder `inside` or that of TMPDIR."""

    def __init__(self, prefix: str, inside: str | None = None) -> None:
        self.place = ""
        """Empty where no folder can be made."""
        self.remove: Callable[[], object] = lambda: None
        try:
            _remove_stale(prefix, inside or tempfile.gettempdir())
            folder = tempfile.mkdtemp(prefix=prefix, dir=inside)  # its mode is 0700
            lock = os.open(f"{folder}/{_LOCK}", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            return
        self.place = folder
        _folders[folder] = lock
        self.remove = weakref.finalize(self, _remove_folder, folder)


_folders: dict[str, int] = {}
"""Folders of this process, and the descriptors of their locks."""


def remove_private_folders() -> None:
    """Remove the folders of this process, which is about to end without tidying up."""
    for folder in list(_folders):
        _remove_folder(folder)


def _remove_folder(folder: str) -> None:
    lock = _folders.pop(folder, None)
    if lock is not None:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _remove_stale(prefix: str, inside: str) -> None:
    """Remove the folders of processes that were killed; those of other users are left alone."""
    for folder in Path(inside).glob(f"{prefix}*"):
        try:
            facts = folder.lstat()
            if facts.st_uid == os.getuid() and not folder.is_symlink() and _is_stale(folder):
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # another process has removed it


def _is_stale(folder: Path) -> bool:
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return time.time() - folder.stat().st_mtime > _FRESH_S
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(lock)
