"""What a job takes along: this code, the small files its command names, and the command itself."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ganad
import pipelines
from ganad.detectors.settings import presets
from ganad.errors import ConfigError
from ganad.storage import files as storage

DRIVER_CPUS = {"index": 0, "train": 0, "score": 0, "show": 0, "detectors": 0, "query": 1}
DRIVER_CPUS |= {"evaluate": 1, "report": 1}
"""Processor cores of the command's own process, for each command that can be a job. With 0 it runs
on the head, which does not go away as a spot machine does, and waits there for Ray's workers. Those
that compute in their own process ask for a core, so that the head is left alone."""
PLACES = ("sources", "models_and_source", "model", "table", "add_to", "out")
"""Parameters that name images, models and tables, which the cluster reads and writes itself."""
FILES = ("config", "labels")
"""Parameters that name a small file of this machine, which goes along."""
FILE_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Parcel:
    """A command line as it runs on the cluster."""

    name: str
    arguments: tuple[str, ...]
    files: Mapping[str, Path]
    """Name in the parcel -> file of this machine."""
    out: str | None
    """Where it writes, if it does."""

    @property
    def entrypoint(self) -> str:
        return shlex.join(["python", "-m", "pipelines", *self.arguments])

    @property
    def command(self) -> str:
        """As a person would type it."""
        return shlex.join(["ganad", *self.arguments])

    @property
    def driver_cpus(self) -> int:
        return DRIVER_CPUS[self.name]


def pack(arguments: Sequence[str], parameters: Mapping[str, Any]) -> Parcel:
    """A parcel of a command line, its parameters parsed already.

    Raises ConfigError for a place that only this machine has.
    """
    name = arguments[0]
    for parameter in PLACES:
        value = parameters.get(parameter) or []
        for place in [value] if isinstance(value, str) else value:
            _check_place(place)
    for assignment in parameters.get("set_") or []:
        key, _, value = assignment.partition("=")
        if not Path(value).is_absolute() and Path(value).is_file():
            _refuse(f"--set {key}={value}")
    files: dict[str, Path] = {}
    rewritten = list(arguments)
    for parameter in FILES:
        value = parameters.get(parameter)
        if parameter == "config" and str(value) in presets(parameters.get("detector") or ""):
            continue  # a part of ganad, which the cluster has
        if value is not None and not storage.is_remote(str(value)):
            sent = f"files/{parameter}-{Path(value).name}"
            files[sent] = _checked(parameter, Path(value))
            rewritten = [_replaced(word, f"--{parameter}", str(value), sent) for word in rewritten]
    out = parameters.get("out")
    return Parcel(name, tuple(rewritten), files, out and storage.absolute(out))


def _check_place(place: str) -> None:
    if not storage.is_remote(place) and not place.startswith(("/", "file:///")):
        _refuse(place)


def _refuse(typed: str) -> None:
    raise ConfigError(
        f"{typed} is a place on this machine, which the cluster cannot see: give s3://bucket/... "
        f"or the absolute path of a disk that all its machines share"
    )


def _checked(parameter: str, file: Path) -> Path:
    if not file.is_file():
        raise ConfigError(f"--{parameter} {file} does not exist: give a file of this machine")
    if file.stat().st_size > FILE_BYTES:
        raise ConfigError(
            f"--{parameter} {file} has more than {FILE_BYTES // 2**20} MB, too much to send along "
            f"with a job: put it on s3:// and name it there"
        )
    return file


def _replaced(word: str, flag: str, value: str, sent: str) -> str:
    if word == value:
        return sent
    return f"{flag}={sent}" if word == f"{flag}={value}" else word


@contextmanager
def staged(parcel: Parcel) -> Iterator[Path]:
    """A folder with the code and the files: under 1 MB, the same bytes for the same tree."""
    with tempfile.TemporaryDirectory(prefix="ganad-job-") as folder:
        for package in (ganad, pipelines):
            (home,) = package.__path__
            shutil.copytree(
                home,
                Path(folder) / Path(home).name,
                ignore=shutil.ignore_patterns("__pycache__", "*.py[co]"),
            )
        for sent, file in parcel.files.items():
            (Path(folder) / sent).parent.mkdir(exist_ok=True)
            shutil.copy(file, Path(folder) / sent)
        yield Path(folder)
