"""Where a training job keeps its decoded images: in a folder that runs share, or in its own.

GANAD_CACHE names the folder that is shared, on a disk that all machines see or on s3://. In it the
images of one data set at one size lie in decoded-<key>. Its key is made of all that decides on
pixels: the place of each image, in order, the preprocessing, and the versions of what decodes; and
of the times that local files were changed, so that a file replaced by another is decoded anew. Of
objects on S3 no time is known, only the size that the manifest gives. The seed is no part of the
key: runs with other seeds, and other detectors of the same size, share.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import PIL

from ganad import __version__
from ganad.errors import ConfigError
from ganad.storage import files as storage
from pipelines.train.job import TrainingJob

FOLDER, BYTES = "GANAD_CACHE", "GANAD_CACHE_BYTES"
"""Environment variables, read by the process that a person starts: its workers are told."""
SHARE_OF_DISK = 0.8
"""Of what is free: shards that would take more are not made."""


@dataclass(frozen=True)
class Cache:
    """A folder of decoded images, of one data set at one size."""

    folder: str
    shared: bool
    """It stays when the run that made it has ended."""

    @staticmethod
    def of(job: TrainingJob) -> Cache:
        """The job's; raises ArchiveError for a GANAD_CACHE that is neither a path nor s3://."""
        place = os.environ.get(FOLDER)
        if not place:  # job.json says what it belongs to
            return Cache(job.place("cache"), shared=False)
        return Cache(storage.join(storage.absolute(place), f"decoded-{_key(job)}"), shared=True)

    def room(self) -> int:
        """Bytes that may be added. Raises ConfigError for a GANAD_CACHE_BYTES that is no number."""
        typed = os.environ.get(BYTES)
        if typed:
            if not typed.isdecimal():
                raise ConfigError(
                    f"{BYTES}={typed} is no number of bytes: give digits alone, such as "
                    f"{BYTES}=500000000000"
                )
            return int(typed)
        # Shards on S3 are copied to the disks of the workers, of which this one is an example.
        place = Path(tempfile.gettempdir() if storage.is_remote(self.folder) else self.folder)
        while not place.exists():
            place = place.parent
        return int(SHARE_OF_DISK * shutil.disk_usage(place).free)


def cache_environment() -> dict[str, str]:
    """What another process needs in its environment to use the cache of this one."""
    found = {name: os.environ[name] for name in (FOLDER, BYTES) if os.environ.get(name)}
    if FOLDER in found:
        found[FOLDER] = storage.absolute(found[FOLDER])
    return found


def _key(job: TrainingJob) -> str:
    """16 hex characters."""
    digest = hashlib.blake2b(digest_size=8)
    digest.update(f"{__version__} {PIL.__version__} {job.preprocessing!r}\n".encode())
    columns = job.table(["uri", "member", "offset", "size", "column"]).to_pydict()
    for row in zip(*columns.values(), strict=True):
        digest.update(f"{row!r}\n".encode())
    for uri in sorted(set(columns["uri"])):  # a tar or a Parquet file has many images
        if not storage.is_remote(uri):
            with suppress(OSError):  # one that has vanished is told of when it is decoded
                digest.update(f"{uri} {os.stat(uri).st_mtime_ns}\n".encode())
    return digest.hexdigest()
