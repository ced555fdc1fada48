"""Where a training job keeps its decoded images: in a folder that runs share, or in its own.

GANAD_CACHE names the shared folder, on a disk that all machines see or on s3://. It holds the
images of one data set at one size in decoded-<key>. The key depends on everything that decides the
pixels: the location of each image, in order, the preprocessing, and the versions of ganad and
Pillow; and on the times at which local files were changed, so that a file that was replaced is
decoded again. For objects on S3 only the size is known, from the manifest. The seed is not part of
the key: runs with other seeds, and other detectors with the same image size, share the images. The
dense maps of a frozen network lie in maps-<key>, whose key depends on the network's weights, its
levels, the grid and the precision as well.

Each shard has a record beside it, with a digest of its bytes that is checked before every run (see
pipelines.train.predecode).
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
"""Environment variables. The process that a person starts reads them and passes them on to its
workers."""
SHARE_OF_DISK = 0.8
"""Share of the free space that new shards may take."""


@dataclass(frozen=True)
class Cache:
    """A folder of the decoded images of one data set at one size."""

    folder: str
    shared: bool
    """True if it stays when the run that made it has ended."""

    @staticmethod
    def of(job: TrainingJob, identity: str = "") -> Cache:
        """The cache of a job. identity: of what is made of the pixels, such as maps; "" = pixels.

        Raises ArchiveError if GANAD_CACHE is neither a path nor s3://.
        """
        place, name = os.environ.get(FOLDER), "maps" if identity else "decoded"
        if not place:  # job.json says what it belongs to
            return Cache(job.place("cache", *([name] if identity else [])), shared=False)
        key = _key(job, identity)
        return Cache(storage.join(storage.absolute(place), f"{name}-{key}"), shared=True)

    def room(self) -> int:
        """Bytes that may be added. Raises ConfigError if GANAD_CACHE_BYTES is not a number."""
        typed = os.environ.get(BYTES)
        if typed:
            if not typed.isdecimal():
                raise ConfigError(
                    f"{BYTES}={typed} is not a number of bytes: give digits only, such as "
                    f"{BYTES}=500000000000"
                )
            return int(typed)
        # Workers copy shards from S3 to their own disks, which are taken to be like this one.
        place = Path(tempfile.gettempdir() if storage.is_remote(self.folder) else self.folder)
        while not place.exists():
            place = place.parent
        return int(SHARE_OF_DISK * shutil.disk_usage(place).free)


def cache_environment() -> dict[str, str]:
    """The environment variables with which another process uses the same cache."""
    found = {name: os.environ[name] for name in (FOLDER, BYTES) if os.environ.get(name)}
    if FOLDER in found:
        found[FOLDER] = storage.absolute(found[FOLDER])
    return found


def _key(job: TrainingJob, identity: str) -> str:
    """16 hex characters."""
    digest = hashlib.blake2b(digest_size=8)
    digest.update(f"{__version__} {PIL.__version__} {job.preprocessing!r}\n".encode())
    digest.update(identity.encode())
    columns = job.table(["uri", "member", "offset", "size", "column"]).to_pydict()
    for row in zip(*columns.values(), strict=True):
        digest.update(f"{row!r}\n".encode())
    for uri in sorted(set(columns["uri"])):  # a tar or a Parquet file has many images
        if not storage.is_remote(uri):
            with suppress(OSError):  # a file that has vanished is reported when it is decoded
                digest.update(f"{uri} {os.stat(uri).st_mtime_ns}\n".encode())
    return digest.hexdigest()
