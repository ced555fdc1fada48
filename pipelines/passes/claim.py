"""The file that says whose work an output folder holds, written before any of the work."""

from __future__ import annotations

from typing import Any

from ganad.errors import Mismatch
from ganad.storage import files as storage


def claim(folder: str, file: str, identity: dict[str, Any], typed: str, remedy: str) -> None:
    """Claim the folder for this work, or find that it already was.

    Raises Mismatch, naming the first key that differs, if it holds other work.
    """
    uri = storage.join(folder, file)
    if not storage.exists(uri):
        storage.write_json(uri, identity)
        return
    before = storage.read_json(uri)
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
