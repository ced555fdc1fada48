"""Which labels are normal and which abnormal, as the user says or by their names; and the labels
of a CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from ganad.archive.layout import has_normal, is_normal
from ganad.archive.rows import label_of
from ganad.archive.verdicts import is_verdicts, read_verdicts
from ganad.errors import ConfigError
from ganad.storage import files as storage
from ganad.storage.reasons import translated

KEY_COLUMNS = ("path", "uri", "name")
_COLUMNS = "path (or uri or name), label, and perhaps abnormal, mask and split"
_TRUTH = {
    **dict.fromkeys(("1", "true", "yes", "y"), True),
    **dict.fromkeys(("0", "false", "no", "n"), False),
    "": None,
}
_SPLITS = ("train", "test", "")


class Naming:
    """The labels that the user calls normal and abnormal. If only one kind is named, all other
    labels are of the other kind."""

    def __init__(self, normal: Collection[str] = (), abnormal: Collection[str] = ()) -> None:
        self.normal, self.abnormal = frozenset(normal), frozenset(abnormal)
        self.by_user = bool(normal or abnormal)
        """True if the user named labels: then no other label matters."""
        both = sorted(self.normal & self.abnormal)
        if both:
            raise ConfigError(f"label {both[0]!r} is named normal and abnormal: name it once")

    def judge(
        self, label: str | None, known: bool | None = None, siblings: Collection[str] = ()
    ) -> bool | None:
        """True if a label is abnormal: as the user says, else as is known already, else by the
        names of all labels of its source. None if none of them decides it."""
        if label is None:
            return None
        if self.by_user:
            if label in self.normal or label in self.abnormal:
                return label in self.abnormal
            return None if self.normal and self.abnormal else not self.abnormal
        if known is None and has_normal(siblings):
            return not is_normal(label)
        return known

    def check(self, labels: Mapping[str, int]) -> None:
        """Raises ConfigError for a named label that no image has."""
        for kind, named in (("normal", self.normal), ("abnormal", self.abnormal)):
            missing = sorted(named - set(labels))
            if missing:
                there = ", ".join(sorted(labels)[:20]) or "none: no image has a label"
                raise ConfigError(
                    f"{missing[0]!r} is named as a {kind} label and no image has it: "
                    f"the labels are {there}"
                )


class CsvRow(NamedTuple):
    """One line of a CSV of labels. key: an absolute uri, or a name as in manifests."""

    key: str
    path: str
    """As written in the CSV."""
    line: int
    label: str | None
    abnormal: bool | None
    mask: str | None
    split: str | None


def read_labels(uri: str) -> Iterator[CsvRow]:
    """The lines of a CSV of labels without empty ones, or the verdicts in a table's folder
    _verdicts, one by one. Raises ArchiveError if it cannot be read, and ConfigError if something in
    it is wrong."""
    if is_verdicts(uri):
        yield from _verdict_rows(uri)
        return
    place = storage.absolute(uri)
    folder = place.rpartition("/")[0]
    with translated(uri), storage.open_stream(place) as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        try:
            header, start = text.readline(), 2
            if header.lower().startswith("sep="):  # Excel's own line
                header, start = text.readline(), 3
            delimiter = max(",;\t", key=header.count)
            first = next(csv.reader([header], delimiter=delimiter), [])
            names = [name.strip().lower() for name in first]
            key = _check_header(uri, names)
            for number, cells in enumerate(csv.reader(text, delimiter=delimiter), start=start):
                if any(cell.strip() for cell in cells):  # Excel writes rows of delimiters alone
                    yield _row(uri, number, key, folder, dict(zip(names, cells, strict=False)))
        except (UnicodeDecodeError, csv.Error) as error:
            raise ConfigError(f"{uri}: is not a CSV in UTF-8 ({error}): save it as one") from error


def _verdict_rows(uri: str) -> Iterator[CsvRow]:
    """Verdicts as labels: the one that counts for each image."""
    for line, verdict in enumerate(read_verdicts(uri).values(), start=1):
        yield CsvRow(
            key=verdict.name if verdict.member else verdict.uri,
            path=verdict.name,
            line=line,
            label=verdict.label,
            abnormal=_TRUTH[verdict.abnormal],
            mask=None,
            split=None,
        )


def _check_header(uri: str, names: Sequence[str]) -> str:
    key = next((name for name in KEY_COLUMNS if name in names), None)
    if key is None or "label" not in names:
        found = ", ".join(name for name in names if name) or "nothing"
        raise ConfigError(f"{uri}: its first line names the columns {found}: give {_COLUMNS}")
    return key


def _row(uri: str, line: int, key: str, folder: str, cells: Mapping[str, str]) -> CsvRow:
    def cell(name: str) -> str:
        return cells.get(name, "").strip()

    path, truth, split, mask = cell(key), cell("abnormal"), cell("split"), cell("mask")
    if not path:
        raise ConfigError(f"{uri}: line {line} has no {key}: name the image")
    if truth.lower() not in _TRUTH:
        raise ConfigError(
            f"{uri}: line {line} has abnormal {truth!r}: write true, false or nothing"
        )
    if split.lower() not in _SPLITS:
        raise ConfigError(f"{uri}: line {line} has split {split!r}: write train, test or nothing")
    return CsvRow(
        key=storage.absolute(path) if _is_absolute(path) else path.removeprefix("./"),
        path=path,
        line=line,
        label=label_of(cell("label")),
        abnormal=_TRUTH[truth.lower()],
        mask=(mask if _is_absolute(mask) else storage.join(folder, mask)) if mask else None,
        split=split.lower() or None,
    )


def _is_absolute(path: str) -> bool:
    return path.startswith("/") or "://" in path
