"""A listing whose parts are used before it has ended: they stay, even if it is cut off.

manifest.unfinished.json names the listing that the parts belong to. A part is written whole, so
every part in the folder counts, and the next listing goes on behind the last one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ganad.archive.parts import PART, Part, num_rows
from ganad.errors import ManifestError
from ganad.storage import files as storage
from ganad.storage.records import CheckedRecord, Record, read_record, write_record

NAME = "manifest.unfinished.json"


class Labelling(Record):
    """What decides on the labels of a manifest."""

    labels: str | None = None
    """A CSV, absolute."""
    normal: tuple[str, ...] = ()
    abnormal: tuple[str, ...] = ()


class Unfinished(CheckedRecord):
    """A listing that has begun."""

    OLD_FORMAT: ClassVar[str] = "ganad unfinished manifest 1"

    format: Literal["ganad unfinished manifest 1", "ganad unfinished manifest 2"] = (
        "ganad unfinished manifest 2"
    )
    id: str = ""
    """The id that the manifest will have."""
    sources: tuple[str, ...]
    """Absolute."""
    named: Labelling
    follows: str
    """Digest of the finished manifest that its parts come after; empty if there was none."""
    token: Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")]
    """In the names of its parts."""

    def parts(self, folder: str, first: int) -> list[Part]:
        """Its parts in the folder, numbered from first. Raises ArchiveError."""
        theirs: dict[int, str] = {}
        for name in storage.list_names(folder):
            match = PART.fullmatch(name)
            if match and match[2] == self.token:
                theirs.setdefault(int(match[1]), name)
        found: list[Part] = []
        while first + len(found) in theirs:
            uri = storage.join(folder, theirs[first + len(found)])
            found.append(Part(uri, num_rows(uri)))
        return found

    def before_first(self, folder: str, on_part: Callable[[Part], None]) -> Callable[[Part], None]:
        """on_part, with this record written to the folder before its first call."""
        written = False

        def announce(part: Part) -> None:
            nonlocal written
            if not written:
                write_record(storage.join(folder, NAME), self)
                written = True
            on_part(part)

        return announce


def read_unfinished(uri: str) -> Unfinished | None:
    """The listing that was begun in this folder and has not finished, if there is one. One that
    was killed after it finished, before it removed this file, is found too. Raises ArchiveError."""
    place = storage.join(storage.absolute(uri), NAME)
    if storage.size_of(place) is None:
        return None
    remedy = "write to another folder, or remove this one"
    return read_record(place, Unfinished, remedy, ManifestError)
