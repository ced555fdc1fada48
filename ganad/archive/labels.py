"""Decides which labels are normal and which abnormal, and reads the labels of a CSV."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from ganad.archive.csvs import facts_of, is_absolute, read_csv
from ganad.archive.layout import has_normal, is_normal
from ganad.archive.verdicts import is_verdicts, read_verdicts
from ganad.errors import ConfigError
from ganad.storage import files as storage

KEY_COLUMNS = ("path", "uri", "name")
_COLUMNS = "path (or uri or name), label, and perhaps abnormal, mask and split"


class Naming:
    """The labels that the user names as normal and abnormal. If only one kind is named, all other
    labels are of the other kind."""

    def __init__(self, normal: Collection[str] = (), abnormal: Collection[str] = ()) -> None:
        self.normal, self.abnormal = frozenset(normal), frozenset(abnormal)
        self.by_user = bool(normal or abnormal)
        """True if the user named any label; then nothing else decides."""
        both = sorted(self.normal & self.abnormal)
        if both:
            raise ConfigError(f"label {both[0]!r} is named normal and abnormal: name it once")

    def judge(
        self, label: str | None, known: bool | None = None, siblings: Collection[str] = ()
    ) -> bool | None:
        """True if a label is abnormal, None if unknown. The user's names decide first, then
        `known`, then the names of all labels of its source (siblings)."""
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
        """Raise ConfigError for a named label that no image has."""
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
    """Yield the non-empty lines of a CSV of labels, or the verdicts in a table's folder _verdicts.
    Raises ArchiveError if it cannot be read, and ConfigError if its contents are invalid."""
    if is_verdicts(uri):
        yield from _verdict_rows(uri)
        return
    keys: list[str] = []
    for line, cells in read_csv(uri, lambda names: keys.append(_key_of(uri, names))):
        key = keys[0]
        path = cells.get(key, "").strip()
        if not path:
            raise ConfigError(f"{uri}: line {line} has no {key}: name the image")
        yield CsvRow(
            key=storage.absolute(path) if is_absolute(path) else path.removeprefix("./"),
            path=path,
            line=line,
            **facts_of(uri, f"line {line}", cells)._asdict(),
        )


def _verdict_rows(uri: str) -> Iterator[CsvRow]:
    """Yield the current verdict on each image as a label."""
    for line, verdict in enumerate(read_verdicts(uri).values(), start=1):
        yield CsvRow(
            key=verdict.name if verdict.member else verdict.uri,
            path=verdict.name,
            line=line,
            label=verdict.label,
            abnormal={"true": True, "false": False}.get(verdict.abnormal),
            mask=None,
            split=None,
        )


def _key_of(uri: str, names: Sequence[str]) -> str:
    """The name of the column that identifies the images."""
    key = next((name for name in KEY_COLUMNS if name in names), None)
    if key is None or "label" not in names:
        found = ", ".join(name for name in names if name) or "nothing"
        raise ConfigError(f"{uri}: its first line names the columns {found}: give {_COLUMNS}")
    return key
