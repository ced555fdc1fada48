"""The file that says whose work an output folder holds, written before any of the work."""

from __future__ import annotations

from typing import Any

from pydantic import RootModel

from ganad.errors import Mismatch
from ganad.storage import files as storage
from ganad.storage.records import CHECKSUM, read_record, write_record

Identity = RootModel[dict[str, Any]]
"""What names the work. Files from before checksums have none."""


def claim(folder: str, file: str, identity: dict[str, Any], typed: str, remedy: str) -> None:
    """Claim the folder for this work, or find that it already was.

    Raises Mismatch, naming the first key that differs, if it holds other work, and ArchiveError if
    the file is damaged.
    """
    uri = storage.join(folder, file)
    if not storage.exists(uri):
        write_record(uri, Identity(identity))
        return
    damaged = "delete it, and run the command that the folder began with"
    before = dict(read_record(uri, Identity, damaged).root)
    before.pop(CHECKSUM, None)
    for key in {**identity, **before}:
        if identity.get(key) != before.get(key):
            what = _difference(key, before.get(key), identity.get(key))
            raise Mismatch(f"{typed} holds other work ({what}): {remedy}")


def _difference(key: str, before: Any, now: Any) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        for inner in {**before, **now}:
            if before.get(inner) != now.get(inner):
                return _difference(f"{key}.{inner}", before.get(inner), now.get(inner))
    return f"{key} was {before}, now {now}"
