"""The files of a score table: their names, and which of them are current.

TABLE/_job.json               the manifest's id and the size of a unit; written first
TABLE/_manifest/              the list of images, unless the user gave a manifest
TABLE/_runs/MODEL.json        command, counts, versions and timings of a model's run
TABLE/model=MODEL/part-UNIT.parquet, or part-FIRST-LAST.parquet for several units
TABLE/_regions/model=MODEL/   the regions of each of these files, in a file of the same name

Other programs can read the folder as a Parquet data set: they skip names that begin with _.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from ganad.storage import files as storage
from ganad.storage import s3

JOB, RUNS, MANIFEST, REGIONS = "_job.json", "_runs", "_manifest", "_regions"
OLD_JOB, OLD_RUN = "job.json", "run.json"
"""Names that earlier versions used; such tables can be read and resumed."""

SCHEMA_MARK = "0-schema"
"""Name of a file without rows in each model's folder; see ganad.scores.parts.write_schema_mark."""

_MODEL = "model="
_NAME = re.compile(r"part-(\d{5,})(?:-(\d{5,}))?\.parquet")


@dataclass(frozen=True)
class ScoreFile:
    """A Parquet file with one model's scores for the units first..last (inclusive)."""

    table: str
    """URI of the table."""
    model: str
    first: int
    last: int
    size: int = 0
    """Bytes, if known from a listing: DuckDB asks for the size several times per query."""

    @property
    def name(self) -> str:
        units = f"{self.first:06d}"
        if self.last > self.first:
            units += f"-{self.last:06d}"
        return f"part-{units}.parquet"

    @property
    def path(self) -> str:
        """Path relative to the table."""
        return f"{model_folder(self.model)}/{self.name}"

    @property
    def uri(self) -> str:
        return storage.join(self.table, self.path)

    @property
    def regions(self) -> ScoreFile:
        """The file of the regions of its images, of unknown size."""
        return replace(self, table=storage.join(self.table, REGIONS), size=0)

    @property
    def units(self) -> range:
        return range(self.first, self.last + 1)


def model_folder(model: str) -> str:
    """Folder of a model's parts, relative to the table."""
    return f"{_MODEL}{model}"


def list_files(table: str) -> list[ScoreFile]:
    """All score files, superseded ones included, sorted by model and unit. Every file is complete,
    because writers create them atomically. Raises ArchiveError."""
    parsed = (_parse(table, path, size) for path, size in _paths(table))
    return sorted(
        (file for file in parsed if file is not None), key=lambda file: (file.model, file.first)
    )


def live(files: Iterable[ScoreFile]) -> list[ScoreFile]:
    """The current files: a file supersedes those whose units it contains. Merging writes the large
    file, which takes effect at once, and then removes the small ones."""
    by_model: dict[str, list[ScoreFile]] = defaultdict(list)
    for file in sorted(files, key=lambda file: (file.model, file.first, -file.last)):
        kept = by_model[file.model]
        if not kept or file.last > kept[-1].last:
            kept.append(file)
    return [file for kept in by_model.values() for file in kept]


def list_models(table: str) -> list[str]:
    """Models with a folder in the table, even an empty one."""
    folders = storage.list_folders(table)
    return [name.removeprefix(_MODEL) for name in folders if name.startswith(_MODEL)]


def _parse(table: str, path: str, size: int) -> ScoreFile | None:
    folder, _, name = path.partition("/")
    match = _NAME.fullmatch(name)
    if match is None or not folder.startswith(_MODEL):
        return None
    first = int(match[1])
    last = int(match[2]) if match[2] else first
    file = ScoreFile(table, folder.removeprefix(_MODEL), first, last, size)
    return file if last >= first and file.path == path else None


def _paths(table: str) -> Iterator[tuple[str, int]]:
    """Yield paths relative to the table, with sizes; S3 is listed in pages of a thousand keys."""
    if storage.is_remote(table):
        _, prefix = s3.split_key(table)
        for files, _ in s3.pages(table, start=_MODEL):
            for key, size in files:
                yield key.removeprefix(prefix).lstrip("/"), size
        return
    for model in list_models(table):
        folder = model_folder(model)
        for name in storage.list_names(storage.join(table, folder)):
            yield f"{folder}/{name}", storage.size_of(storage.join(table, folder, name)) or 0
