"""Reads a CSV or Parquet file of URIs, such as the result of a query, as a list of images.

Columns: uri (or path, relative to the file), and optionally member, name, label, abnormal, mask and
split; others are ignored. A list is held in memory, and each shard in it is listed once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import islice
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from ganad.archive.csvs import LineFacts, beside, facts_of, is_csv, read_csv
from ganad.archive.layout import Layout, Surroundings, has_normal, is_normal
from ganad.archive.parquets import DAMAGE, ImageFile, is_parquet, open_images
from ganad.archive.rows import Row, image_id, loose_row
from ganad.archive.tars import Listed, Member, listed_ahead
from ganad.archive.verdicts import is_verdicts, read_verdicts
from ganad.archive.walk import stat_file
from ganad.errors import ArchiveError, ConfigError
from ganad.storage import files as storage
from ganad.storage.reasons import translated
from ganad.storage.retry import why

URI_COLUMNS = ("uri", "path")
_WANTED = (*URI_COLUMNS, "member", "name", "label", "abnormal", "mask", "split")
_BATCH = 4096  # rows read from a Parquet file at a time
_REQUESTS = 16  # concurrent requests for the sizes of objects on S3


class Entry(NamedTuple):
    """One image of a list."""

    uri: str
    member: str | None
    """Member of a shard; a row number for Parquet files."""
    name: str
    facts: LineFacts


class UriList:
    """The images in a list. source: as typed. Raises ArchiveError if it cannot be read, and
    ConfigError if its contents are invalid."""

    def __init__(self, source: str) -> None:
        self._columns: Sequence[str] = ()
        self.entries = list(self._read(source))
        labels = (entry.facts.label for entry in self.entries)
        self._labels = {label for label in labels if label is not None}

    def _read(self, uri: str) -> Iterator[Entry]:
        if is_verdicts(uri):
            lines = self._verdicts(uri)
        else:
            lines = self._csv_lines(uri) if is_csv(uri) else self._parquet_lines(uri)
        for where, cells in lines:
            key = next(name for name in URI_COLUMNS if name in self._columns)
            path, member = cells.get(key, "").strip(), cells.get("member", "") or None
            if not path:
                raise ConfigError(f"{uri}: {where} has no {key}: name the image")
            short = path.rpartition("/")[2] if member else path.removeprefix("./")
            name = cells.get("name") or (f"{short}#{member}" if member else short)
            yield Entry(beside(uri, path), member, name, facts_of(uri, where, cells))

    def _verdicts(self, uri: str) -> Iterator[tuple[str, Mapping[str, str]]]:
        """Verdicts given in ganad browse: a false alarm is a normal image."""
        self._columns = ("uri", "member", "name", "label", "abnormal")
        for verdict in read_verdicts(uri).values():
            yield verdict.name, {name: getattr(verdict, name) for name in self._columns}

    def _csv_lines(self, uri: str) -> Iterator[tuple[str, Mapping[str, str]]]:
        for line, cells in read_csv(uri, lambda names: self._check(uri, names)):
            yield f"line {line}", cells

    def _parquet_lines(self, uri: str) -> Iterator[tuple[str, Mapping[str, str]]]:
        with translated(uri), storage.open_input(storage.absolute(uri)) as source:
            try:
                file = pq.ParquetFile(source)
                names = {name.lower(): name for name in file.schema_arrow.names}
                self._check(uri, list(names))
                wanted = {key: name for key, name in names.items() if key in _WANTED}
                row = 0
                for batch in file.iter_batches(_BATCH, columns=list(wanted.values())):
                    for values in batch.select(list(wanted.values())).to_pylist():
                        cells = {key: _text(values[name]) for key, name in wanted.items()}
                        yield f"row {row}", cells
                        row += 1
            except DAMAGE as error:
                raise ArchiveError(f"{uri}: is damaged; make the file again") from error

    def _check(self, uri: str, names: Sequence[str]) -> None:
        self._columns = names
        if not any(name in names for name in URI_COLUMNS):
            found = ", ".join(filter(None, names)) or "nothing"
            raise ArchiveError(
                f"{uri}: names the columns {found}; a list of images needs a column uri or path "
                f"(and a CSV of labels goes with --labels)"
            )

    # ---- Rows ------------------------------------------------------------------------------------

    def rows(self, surroundings: Surroundings) -> Iterator[Row]:
        """Yield the row of each image: loose ones in the order of the list, then shard by shard.

        If the list has no column for labels or masks, they come from the folders of loose images.
        """
        yield from self._loose(surroundings)
        by_shard: dict[str, list[Entry]] = {}
        for entry in self.entries:
            if entry.member is not None:
                by_shard.setdefault(entry.uri, []).append(entry)
        shards = ((uri, None if is_parquet(uri) else uri) for uri in by_shard)
        with closing(listed_ahead(shards)) as found:
            for uri, shard in found:
                if shard is None:
                    yield from self._cells(by_shard[uri])
                else:
                    yield from self._members(by_shard[uri], shard)

    def _loose(self, surroundings: Surroundings) -> Iterator[Row]:
        loose = [entry for entry in self.entries if entry.member is None]
        layouts: dict[str, Layout] = {}
        for entry, (size, error) in zip(loose, _sizes(entry.uri for entry in loose), strict=True):
            facts = self._facts(entry)
            folder, _, name = entry.uri.rpartition("/")
            if error is None and not {"label", "mask"} <= set(self._columns):
                layout = layouts.setdefault(folder, Layout(folder or "/", surroundings))
                around, mask = layout.describe(name)
                if "label" not in self._columns:
                    facts |= {"label": around.label, "abnormal": around.abnormal}
                if "mask" not in self._columns:
                    facts["mask"] = mask
            yield loose_row(entry.uri, entry.name, size=size, error=error, **facts)

    def _facts(self, entry: Entry) -> dict[str, Any]:
        label, abnormal = entry.facts.label, entry.facts.abnormal
        if abnormal is None and label is not None and has_normal(self._labels):
            abnormal = not is_normal(label)
        return {**entry.facts._asdict(), "abnormal": abnormal}

    def _member_row(self, entry: Entry, **place: Any) -> Row:
        row = loose_row(entry.uri, entry.name, **place, **self._facts(entry))
        return {**row, "image_id": image_id(entry.uri, entry.member), "member": entry.member}

    def _members(self, entries: Sequence[Entry], shard: Listed) -> Iterator[Row]:
        members = {member.name: member for member in shard.members}
        gone = "the shard has no such member"
        if shard.error is not None:
            gone = str(shard.error).removeprefix(f"{entries[0].uri}: ")
        for entry in entries:
            member = members.get(entry.member or "", Member("", 0, 0, error=gone))
            if member.link is None and member.error is None:
                yield self._member_row(entry, offset=member.offset, size=member.size)
            else:
                yield self._member_row(entry, error=member.error)

    def _cells(self, entries: Sequence[Entry]) -> Iterator[Row]:
        file, error = _image_file(entries[0].uri)
        for entry in entries:
            number = entry.member or ""
            if file is None:
                yield self._member_row(entry, error=error)
            elif not number.isdecimal() or int(number) >= file.num_rows:
                yield self._member_row(entry, error="the file has no such row")
            else:
                yield self._member_row(entry, offset=int(number), column=file.column)


def is_list(uri: str) -> bool:
    """True for a CSV, for verdicts, and for a Parquet file with a column uri and none of bytes.
    Raises ArchiveError if it is damaged."""
    if is_csv(uri) or is_verdicts(uri):
        return True
    if not is_parquet(uri) or open_images(uri) is not None:
        return False
    with translated(uri), storage.open_input(uri) as source:
        return "uri" in (name.lower() for name in pq.read_schema(source).names)


def _text(value: Any) -> str:
    return "" if value is None or value != value else str(value)


def _sizes(uris: Iterable[str]) -> Iterator[tuple[int | None, str | None]]:
    """Yield (size in bytes, error) of each file; both are None if it does not exist."""
    uris = iter(uris)
    with ThreadPoolExecutor(_REQUESTS, thread_name_prefix="ganad-sizes") as pool:
        while chunk := list(islice(uris, 100 * _REQUESTS)):
            is_remote = any(map(storage.is_remote, chunk))
            yield from pool.map(_size, chunk) if is_remote else map(_size, chunk)


def _size(uri: str) -> tuple[int | None, str | None]:
    if storage.is_remote(uri):
        with suppress(ArchiveError):  # reported when the image is fetched
            return storage.size_of(uri), None
        return None, None
    file = stat_file(uri, uri)
    return file.size, None if file.is_regular else "is a pipe or a device, not a file"


def _image_file(uri: str) -> tuple[ImageFile | None, str | None]:
    """(the Parquet file of images, None), or (None, error text)."""
    try:
        file = open_images(uri)
    except ArchiveError as error:
        reason = why(error)
        if reason is not None and (reason.transient or reason.everywhere):
            raise
        return None, str(error).removeprefix(f"{uri}: ")
    return file, None if file is not None else "the file has no column of bytes any more"
