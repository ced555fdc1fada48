"""JSON files with a fixed set of fields: read through a pydantic model, with a checksum.

Whatever a file holds, reading it gives a record or one error of one line: text that is not JSON,
JSON nested a hundred thousand levels deep, missing or null fields, and, by the checksum, any
changed byte.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from ganad.errors import ArchiveError, GanadError
from ganad.storage import files as storage

MAX_BYTES = 2**28
"""Larger files are refused; the manifest.json of a billion images has about 2 MiB."""
CHECKSUM = "checksum"


class Record(BaseModel):
    """Base of such files. Unknown keys are ignored: a later version may add some."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, allow_inf_nan=False)


class CheckedRecord(Record):
    """Base of files that always have a checksum, but those of the format from before."""

    OLD_FORMAT: ClassVar[str]

    format: str
    checksum: str | None = Field(default=None, exclude=True, repr=False)

    @property
    def has_what_its_format_needs(self) -> bool:
        """False if the checksum is missing, or was added to a file from before checksums."""
        return (self.checksum is None) == (self.format == self.OLD_FORMAT)


R = TypeVar("R", bound=BaseModel)


def write_record(uri: str, record: BaseModel) -> None:
    """Write a record and its checksum, atomically. Raises ArchiveError."""
    info = record.model_dump(mode="json", by_alias=True)
    info.pop(CHECKSUM, None)
    storage.write_json(uri, {**info, CHECKSUM: checksum_of(info)})


def read_record(uri: str, kind: type[R], remedy: str, error: type[GanadError] = ArchiveError) -> R:
    """Read a record. A checksum is compared if the file has one, and a CheckedRecord must have it.

    Raises error for a damaged file, in a sentence that ends with the remedy, and ArchiveError if
    the file cannot be read.
    """
    data = storage.read_bytes(uri, 0, MAX_BYTES + 1)
    try:
        if len(data) > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES:,} bytes")
        info = from_json(data, allow_inf_nan=False)
        if isinstance(info, dict) and CHECKSUM in info:
            rest = {key: value for key, value in info.items() if key != CHECKSUM}
            if checksum_of(rest) != info[CHECKSUM]:
                raise ValueError("its checksum is another")
        record = kind.model_validate(info)
        if isinstance(record, CheckedRecord) and not record.has_what_its_format_needs:
            raise ValueError("its format and its checksum do not belong together")
        return record
    except ValueError as fault:  # pydantic's errors are such, too
        raise error(f"{uri}: is damaged ({_in_one_line(fault)}); {remedy}") from fault


def checksum_of(info: dict[str, Any]) -> str:
    """16 hex characters over the keys and values, in any order of the keys."""
    text = json.dumps(info, sort_keys=True, ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _in_one_line(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        return f"{place}: {first['msg']}"[:200]
    return " ".join(str(error).split())[:200]
