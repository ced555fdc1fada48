"""manifest.json: the record of a finished manifest and its parts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, ClassVar, Literal

import pyarrow as pa
from pydantic import Field, StringConstraints, model_validator

from ganad.archive.parts import PART, Part, read_rows, read_table
from ganad.archive.rows import Row
from ganad.archive.unfinished import Labelling
from ganad.errors import ManifestError
from ganad.storage import files as storage
from ganad.storage.records import CheckedRecord, read_record

NAME = "manifest.json"
_MARK = b'"ganad manifest '  # in the first bytes of every manifest.json
_MARKED_BYTES = 64

Count = Annotated[int, Field(ge=0, lt=2**53, strict=True)]
PartName = Annotated[str, StringConstraints(pattern=f"^{PART.pattern}$")]
Digest = Annotated[str, StringConstraints(pattern="^[0-9a-f]{16}$")]


class Manifest(CheckedRecord):
    """A finished manifest; rows are read from disk on request."""

    OLD_FORMAT: ClassVar[str] = "ganad manifest 1"

    format: Literal["ganad manifest 1", "ganad manifest 2"] = "ganad manifest 2"
    uri: str = Field(default="", exclude=True)
    """URI of its folder."""
    id: str = ""
    """16 random hex characters; a refresh keeps them."""
    sources: tuple[str, ...]
    """Absolute URIs of the sources."""
    num_images: Count = Field(alias="images")
    digest: Digest
    """Digest of id, size, label, abnormal and split of every image, in order."""
    earlier: tuple[Digest, ...] = ()
    """Digests from before each refresh; the earlier images are the leading parts."""
    named: Labelling = Labelling()
    """The options that decided the labels."""
    labels: dict[str, Count]
    """Label -> number of images."""
    num_normal: Count = Field(alias="normal")
    num_abnormal: Count = Field(alias="abnormal")
    num_errors: Count = Field(default=0, alias="errors")
    """Number of rows with an error: images and shards that cannot be read."""
    num_damaged: Count = Field(default=0, alias="damaged")
    """Number of shards that could not be listed completely."""
    merged: Count
    """Number of rows that repeated an image."""
    num_skipped: Count = Field(alias="skipped")
    """Number of files that are not images."""
    notes: tuple[str, ...]
    """Notes to the user, one sentence each."""
    files: tuple[tuple[PartName, Count], ...] = Field(alias="parts")
    """Name and number of rows of each part."""

    @model_validator(mode="after")
    def _add_up(self) -> Manifest:
        if sum(num for _, num in self.files) != self.num_images:
            raise ValueError("the images of its parts do not add up to its number of images")
        return self

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The Parquet files with the rows, in order."""
        return tuple(Part(storage.join(self.uri, name), num) for name, num in self.files)

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows, or some columns of them, in memory. Raises ArchiveError."""
        return pa.concat_tables(read_table(part.uri, columns) for part in self.parts)

    def rows(self, part: Part, start: int, num: int) -> list[Row]:
        """Rows start..start+num of a part (fewer at its end). Raises ArchiveError."""
        return read_rows(part.uri, start, num)


def is_manifest(uri: str) -> bool:
    """True if uri is a folder with a finished manifest, even a damaged one."""
    place = storage.join(storage.absolute(uri), NAME)
    if storage.size_of(place) is None:
        return False
    return _MARK in storage.read_bytes(place, 0, _MARKED_BYTES)


def open_manifest(uri: str) -> Manifest:
    """Read a manifest. Raises ManifestError if there is none, or if it is unfinished or damaged."""
    folder = storage.absolute(uri)
    place = storage.join(folder, NAME)
    if storage.size_of(place) is None:
        if any(PART.fullmatch(name) for name in storage.list_names(folder)):
            raise ManifestError(f"{uri}: indexing did not finish; run the same ganad index again")
        raise ManifestError(f"{uri}: is not a manifest; make one with ganad index")
    if not is_manifest(uri):
        raise ManifestError(
            f"{uri}: its manifest.json is not ganad's or is damaged; make one with ganad index"
        )
    remedy = f"make it again with ganad index SOURCE --out {uri}"
    manifest = read_record(place, Manifest, remedy, ManifestError)
    return manifest.model_copy(update={"uri": folder, "id": manifest.id or _first(manifest)})


def _first(manifest: Manifest) -> str:
    """The id of a manifest of an earlier version without ids: its first digest."""
    return manifest.earlier[0] if manifest.earlier else manifest.digest
