"""Packages a job: its command, this code, and the small files that the command names."""

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
DRIVER_CPUS |= {"evaluate": 1, "compare": 1, "report": 1, "compact": 1, "register": 1}
"""Cores of the command's own process, for each command that can run as a job. With 0 it runs on the
head, which is not a spot machine, and only waits for Ray's workers. Commands that compute in their
own process need a core, so they run on a worker machine."""
PLACES = {"sources", "models_and_source", "tables", "table", "first", "second", "folder"}
PLACES |= {"add_to", "out", "copy_to", "link_to"}
"""Parameters that name images, models and tables, which the cluster must be able to reach."""
FILES = {"config": "--config", "labels": "--labels", "with_": "--with"}
"""Parameters that name small local files, which are packaged -> their flags."""
MAX_FILE_BYTES = 32 * 2**20


@dataclass(frozen=True)
class JobPackage:
    """A command line for the cluster, and the files that it needs there."""

    name: str
    arguments: tuple[str, ...]
    files: Mapping[str, Path]
    """Name in the package -> local file."""
    out: str | None
    """Absolute path or URI of the command's output, if any."""

    @property
    def entrypoint(self) -> str:
        return shlex.join(["python", "-m", "pipelines", *self.arguments])

    @property
    def command(self) -> str:
        """The command as typed by a person."""
        return shlex.join(["ganad", *self.arguments])

    @property
    def driver_cpus(self) -> int:
        return DRIVER_CPUS[self.name]


def package_command(arguments: Sequence[str], parameters: Mapping[str, Any]) -> JobPackage:
    """Package a command line. parameters: its parsed parameters.

    Raises ConfigError for a path that exists only on this machine, and for a file that is missing
    or too large.
    """
    name = arguments[0]
    for parameter in sorted(PLACES):
        value = parameters.get(parameter) or []
        for place in [value] if isinstance(value, str) else value:
            _check_place(place)
    for assignment in parameters.get("set_") or []:
        key, _, value = assignment.partition("=")
        if not Path(value).is_absolute() and Path(value).is_file():
            _refuse(f"--set {key}={value}")
    files: dict[str, Path] = {}
    rewritten = list(arguments)
    for parameter, flag in FILES.items():
        value = parameters.get(parameter) or []
        for typed in map(str, value if isinstance(value, list) else [value]):
            if parameter == "config" and typed in presets(parameters.get("detector") or ""):
                continue  # a preset, which is part of ganad
            if not storage.is_remote(typed):
                # The name is kept, because a query names a view after its file.
                name_there = f"files/{flag.lstrip('-')}/{Path(typed).name}"
                files[name_there] = _checked(flag, Path(typed))
                rewritten = [_replaced(word, flag, typed, name_there) for word in rewritten]
    out = parameters.get("out")
    return JobPackage(name, tuple(rewritten), files, out and storage.absolute(out))


def _check_place(place: str) -> None:
    if not storage.is_remote(place) and not place.startswith(("/", "file:///")):
        _refuse(place)


def _refuse(typed: str) -> None:
    raise ConfigError(
        f"{typed} is a path on this machine, which the cluster cannot see: give s3://bucket/... "
        f"or the absolute path of a disk that all its machines share"
    )


def _checked(flag: str, file: Path) -> Path:
    if file.is_dir():
        _refuse(f"{flag} {file}")
    if not file.is_file():
        raise ConfigError(f"{flag} {file} does not exist: give a file of this machine")
    if file.stat().st_size > MAX_FILE_BYTES:
        raise ConfigError(
            f"{flag} {file} has more than {MAX_FILE_BYTES // 2**20} MB, too much for the package "
            f"of a job: upload it to s3:// and give that path"
        )
    return file


def _replaced(word: str, flag: str, value: str, name_there: str) -> str:
    if word == value:
        return name_there
    return f"{flag}={name_there}" if word == f"{flag}={value}" else word


@contextmanager
def working_dir(package: JobPackage) -> Iterator[Path]:
    """A temporary folder with the code and the files, for the job's working directory."""
    with tempfile.TemporaryDirectory(prefix="ganad-job-") as folder:
        for module in (ganad, pipelines):
            (home,) = module.__path__
            shutil.copytree(
                home,
                Path(folder) / Path(home).name,
                ignore=shutil.ignore_patterns("__pycache__", "*.py[co]"),
            )
        for name, file in package.files.items():
            (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, Path(folder) / name)
        yield Path(folder)
