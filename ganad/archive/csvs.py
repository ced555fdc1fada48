"""CSV files about images, as spreadsheets and data frames write them."""

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
"""Cells of a line as they are, by the name of their column in small letters."""

_TRUTH = {
    **dict.fromkeys(("1", "1.0", "true", "yes", "y"), True),
    **dict.fromkeys(("0", "0.0", "false", "no", "n"), False),
    **dict.fromkeys(("", "nan", "none", "null"), None),
}
_SPLITS = ("train", "test", "")


class Said(NamedTuple):
    """What a line says about its image."""

    label: str | None
    abnormal: bool | None
    mask: str | None
    split: str | None


def is_csv(name: str) -> bool:
    """True if a name ends in .csv, in any case."""
    return name.lower().endswith(".csv")


def read_csv(uri: str, check: Callable[[Sequence[str]], object]) -> Iterator[tuple[int, Cells]]:
    """(number of the line, its cells) of a CSV without empty lines; between cells are commas,
    semicolons or tabs. check is called with the names of the columns.

    Raises ArchiveError if it cannot be read, and ConfigError if it is not a CSV.
    """
    place = storage.absolute(uri)
    with translated(uri), storage.open_stream(place) as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        try:
            header, start = text.readline(), 2
            if header.lower().startswith("sep="):  # Excel's own line
                header, start = text.readline(), 3
            delimiter = max(",;\t", key=header.count)
            first = next(csv.reader([header], delimiter=delimiter), [])
            names = [name.strip().lower() for name in first]
            check(names)
            for number, cells in enumerate(csv.reader(text, delimiter=delimiter), start=start):
                if any(cell.strip() for cell in cells):  # Excel writes rows of delimiters alone
                    yield number, dict(zip(names, cells, strict=False))
        except (UnicodeDecodeError, csv.Error) as error:
            raise ConfigError(f"{uri}: is not a CSV in UTF-8 ({error}): save it as one") from error


def said(uri: str, where: str, cells: Cells) -> Said:
    """Label, truth, mask and split of a line; masks are relative to the file's folder. where: of
    the line in the file, for messages. Raises ConfigError for a value that is none."""
    truth, split, mask = (cells.get(name, "").strip() for name in ("abnormal", "split", "mask"))
    if truth.lower() not in _TRUTH:
        raise ConfigError(f"{uri}: {where} has abnormal {truth!r}: write true, false or nothing")
    if split.lower() not in _SPLITS:
        raise ConfigError(f"{uri}: {where} has split {split!r}: write train, test or nothing")
    return Said(
        label=label_of(cells.get("label")),
        abnormal=_TRUTH[truth.lower()],
        mask=beside(uri, mask) if mask else None,
        split=split.lower() or None,
    )


def beside(uri: str, path: str) -> str:
    """A path in a file -> an absolute one; relative ones begin in the file's folder."""
    if is_absolute(path):
        return storage.absolute(path)
    folder = storage.absolute(uri).rpartition("/")[0]
    return storage.absolute(storage.join(folder, path.removeprefix("./")))


def is_absolute(path: str) -> bool:
    """True for a path from the root and for an address."""
    return path.startswith("/") or "://" in path
