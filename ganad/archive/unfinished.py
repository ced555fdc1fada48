"""A listing whose parts are in use before its end: they stay, even if it is cut off.

manifest.unfinished.json says whose parts they are. A part is written whole, so every part that is
there counts, and the next listing goes on behind the last one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ganad.archive.parts import Part, num_rows, part_name
from ganad.storage import files as storage

NAME = "manifest.unfinished.json"
_FORMAT = "ganad unfinished manifest 1"


@dataclass(frozen=True)
class Unfinished:
    """A listing that has begun."""

    sources: Sequence[str]
    """Absolute."""
    named: Mapping[str, Any]
    """What decides on labels."""
    follows: str
    """Digest of the finished manifest that its parts come after; empty where there was none."""
    token: str
    """In the names of its parts."""

    def parts(self, folder: str, first: int) -> list[Part]:
        """Its parts in the folder, numbered from first. Raises ArchiveError."""
        names = set(storage.list_names(folder))
        found: list[Part] = []
        while (name := part_name(first + len(found), self.token)) in names:
            uri = storage.join(folder, name)
            found.append(Part(uri, num_rows(uri)))
        return found

    def before_first(self, folder: str, on_part: Callable[[Part], None]) -> Callable[[Part], None]:
        """on_part, with this listing written to the folder before its first call."""
        written = False

        def announce(part: Part) -> None:
            nonlocal written
            if not written:
                storage.write_json(storage.join(folder, NAME), {"format": _FORMAT, **asdict(self)})
                written = True
            on_part(part)

        return announce


def read_unfinished(uri: str) -> Unfinished | None:
    """The listing that was begun in this folder and has not finished, if any. One that finished
    and was killed before it tidied up may be found too. Raises ArchiveError."""
    place = storage.join(storage.absolute(uri), NAME)
    if storage.size_of(place) is None:
        return None
    info = storage.read_json(place)
    if not isinstance(info, dict) or info.pop("format", None) != _FORMAT:
        return None
    return Unfinished(**info)
