"""Reads CSV files about images, in the variants that spreadsheets and data frames write."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ganad.archive.rows import label_of
from ganad.errors import ConfigError
from ganad.storage import files as storage
from ganad.storage.reasons import translated

Cells = Mapping[str, str]
"""Unchanged cells of a line, by lower-case column name."""

_TRUTH = {
    **dict.fromkeys(("1", "1.0", "true", "yes", "y"), True),
    **dict.fromkeys(("0", "0.0", "false", "no", "n"), False),
    **dict.fromkeys(("", "nan", "none", "null"), None),
}
_SPLITS = ("train", "test", "")


class LineFacts(NamedTuple):
    """The facts that a line gives about its image."""

    label: str | None
    abnormal: bool | None
    mask: str | None
    split: str | None


def is_csv(name: str) -> bool:
    """True if a name ends in .csv, in any case."""
    return name.lower().endswith(".csv")


def read_csv(uri: str, check: Callable[[Sequence[str]], object]) -> Iterator[tuple[int, Cells]]:
    """Yield (line number, cells) of a CSV without empty lines. The delimiter may be a comma, a
    semicolon or a tab. check: called with the column names.

    Raises ArchiveError if it cannot be read, and ConfigError if it is not a CSV.
    """
    place = storage.absolute(uri)
    with translated(uri), storage.open_stream(place) as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        try:
            header, start = text.readline(), 2
            if header.lower().startswith("sep="):  # written by Excel
                header, start = text.readline(), 3
            delimiter = max(",;\t", key=header.count)
            first = next(csv.reader([header], delimiter=delimiter), [])
            names = [name.strip().lower() for name in first]
            check(names)
            for number, cells in enumerate(csv.reader(text, delimiter=delimiter), start=start):
                if any(
                    cell.strip() for cell in cells
                ):  # Excel writes rows that hold only delimiters
                    yield number, dict(zip(names, cells, strict=False))
        except (UnicodeDecodeError, csv.Error) as error:
            raise ConfigError(f"{uri}: is not a CSV in UTF-8 ({error}): save it as one") from error


def facts_of(uri: str, where: str, cells: Cells) -> LineFacts:
    """Parse label, abnormal, mask and split of a line; masks are relative to the file's folder.
    where: place of the line in the file, for messages. Raises ConfigError for an invalid value."""
    truth, split, mask = (cells.get(name, "").strip() for name in ("abnormal", "split", "mask"))
    if truth.lower() not in _TRUTH:
        raise ConfigError(f"{uri}: {where} has abnormal {truth!r}: write true, false or nothing")
    if split.lower() not in _SPLITS:
        raise ConfigError(f"{uri}: {where} has split {split!r}: write train, test or nothing")
    return LineFacts(
        label=label_of(cells.get("label")),
        abnormal=_TRUTH[truth.lower()],
        mask=beside(uri, mask) if mask else None,
        split=split.lower() or None,
    )


def beside(uri: str, path: str) -> str:
    """The absolute form of a path; relative ones are relative to the folder of the file uri."""
    if is_absolute(path):
        return storage.absolute(path)
    folder = storage.absolute(uri).rpartition("/")[0]
    return storage.absolute(storage.join(folder, path.removeprefix("./")))


def is_absolute(path: str) -> bool:
    """True for an absolute path and for an address such as s3://…"""
    return path.startswith("/") or "://" in path
