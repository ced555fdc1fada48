"""The record of an unfinished listing whose parts are in use already.

manifest.unfinished.json identifies the listing that the parts belong to. Parts are written
atomically, so every part in the folder is complete, and the next listing continues after the last
one, even if this one was killed.
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
    """The options that decide the labels of a manifest."""

    labels: str | None = None
    """Absolute URI of a CSV."""
    normal: tuple[str, ...] = ()
    abnormal: tuple[str, ...] = ()


class Unfinished(CheckedRecord):
    """A listing that has started."""

    OLD_FORMAT: ClassVar[str] = "ganad unfinished manifest 1"

    format: Literal["ganad unfinished manifest 1", "ganad unfinished manifest 2"] = (
        "ganad unfinished manifest 2"
    )
    id: str = ""
    """The id that the manifest will have."""
    sources: tuple[str, ...]
    """Absolute URIs of the sources."""
    named: Labelling
    follows: str
    """Digest of the finished manifest that the parts continue; empty if there was none."""
    token: Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")]
    """Token in the names of its parts."""

    def parts(self, folder: str, first: int) -> list[Part]:
        """Its parts in the folder, numbered from first. Raises ArchiveError."""
        names: dict[int, str] = {}
        for name in storage.list_names(folder):
            match = PART.fullmatch(name)
            if match and match[2] == self.token:
                names.setdefault(int(match[1]), name)
        parts: list[Part] = []
        while first + len(parts) in names:
            uri = storage.join(folder, names[first + len(parts)])
            parts.append(Part(uri, num_rows(uri)))
        return parts

    def before_first(self, folder: str, on_part: Callable[[Part], None]) -> Callable[[Part], None]:
        """Wrap on_part so that this record is written to the folder before the first call."""
        written = False

        def announce(part: Part) -> None:
            nonlocal written
            if not written:
                write_record(storage.join(folder, NAME), self)
                written = True
            on_part(part)

        return announce


def read_unfinished(uri: str) -> Unfinished | None:
    """The unfinished listing in this folder, or None. The record of a finished listing is returned,
    too, if it was killed before it removed this file. Raises ArchiveError."""
    place = storage.join(storage.absolute(uri), NAME)
    if storage.size_of(place) is None:
        return None
    remedy = "write to another folder, or remove this one"
    return read_record(place, Unfinished, remedy, ManifestError)
