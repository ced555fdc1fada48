"""Copies or links the images of score table rows into one folder."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from ganad.errors import ArchiveError, ConfigError
from ganad.scores.refetch import fetch_bytes
from ganad.scores.table import ScoreTable
from ganad.storage import files as storage

NEEDED = ("image_id", "uri", "member", "name")
ROWS_FILE = "rows.csv"
_BATCH = 16
_MOST_BYTES = 120
"""Longest file name; file systems allow 255 bytes, and a number goes in front."""


@dataclass
class Copies:
    """Result of copy_images."""

    num_copied: int = 0
    num_linked: int = 0
    failed: list[str] = field(default_factory=list)
    """One sentence per image that could not be copied."""


def copy_images(
    table: ScoreTable, rows: Iterable[Mapping[str, Any]], out: str, link: bool = False
) -> Copies:
    """Copy the images of rows into a folder, local or on S3, each image once.

    Files are named 0001-name.png in the order of the rows; rows.csv lists the row of each file.
    Members of tars and rows of Parquet files become files, too. link: make symbolic links to local
    image files instead of copies. Raises ConfigError if the folder holds files, or for links on S3.
    """
    folder = storage.absolute(out)
    if link and storage.is_remote(folder):
        raise ConfigError(f"--link-to {out} is on S3, where there are no links: use --copy-to")
    if storage.list_names(folder):
        flag = "--link-to" if link else "--copy-to"
        raise ConfigError(f"{flag} {out} holds files: name a new folder")
    result = Copies()
    written: list[dict[str, Any]] = []
    numbered = _numbered(rows)
    while batch := list(islice(numbered, _BATCH)):
        to_copy = []
        for name, row in batch:
            written.append({"file": name, **row})
            if link and not row["member"] and not storage.is_remote(row["uri"]):
                _link(row["uri"], folder, name)
                result.num_linked += 1
            else:
                to_copy.append((name, row))
        fetched = fetch_bytes(table, [row for _, row in to_copy])
        for (name, row), data in zip(to_copy, fetched, strict=True):
            if isinstance(data, ArchiveError):
                result.failed.append(f"{row['name']}: {data}")
                continue
            storage.write_bytes(storage.join(folder, name), data)
            result.num_copied += 1
    _write_rows(folder, written)
    return result


def _numbered(rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the file name and the row of each distinct image."""
    seen: set[str] = set()
    for row in rows:
        if row["image_id"] not in seen:
            seen.add(row["image_id"])
            yield f"{len(seen):04d}-{_file_name(row['name'])}", row


def _file_name(name: str) -> str:
    """The last part of a name, without characters that are special to shells or file systems."""
    path = PurePosixPath(name)
    stem, suffix = re.sub(r"[^\w.-]", "_", path.stem), re.sub(r"[^\w.]", "", path.suffix)
    while len((stem + suffix).encode()) > _MOST_BYTES:
        stem, suffix = stem[:-1], suffix[:12]
    return stem + suffix


def _link(uri: str, folder: str, name: str) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    os.symlink(uri, storage.join(folder, name))


def _write_rows(folder: str, rows: Sequence[Mapping[str, Any]]) -> None:
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, columns or ["file"], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        nested = {key: json.dumps(v) for key, v in row.items() if isinstance(v, dict | list)}
        writer.writerow({**row, **nested})
    storage.write_bytes(storage.join(folder, ROWS_FILE), text.getvalue().encode())
