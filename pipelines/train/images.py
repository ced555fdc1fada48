"""What a rank of a training reads its images from: the shards, or the archive itself."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import ray.train
import ray.train.collective

from ganad.images.protocol import Images
from ganad.images.shards import Shards
from ganad.images.streamed import Streamed
from ganad.storage.retry import JOB_PATIENCE_S
from pipelines.train.job import TrainingJob
from pipelines.train.kept import read_moments
from pipelines.train.predecode import Decoded


def open_images(job: TrainingJob, decoded: Decoded, tell: Callable[[str], object]) -> Images:
    """All images of the job, or raw maps where those are kept, by row number; every rank calls
    this. tell: of an image that has become unreadable while training runs."""
    if decoded.shards is not None:
        return _open_shards(job.model, decoded.shards)
    return open_pixels(job, tell)


def open_pixels(job: TrainingJob, tell: Callable[[str], object] | None = None) -> Images:
    """All images of the job, by row number, decoded when they are asked for."""
    beside = ray.train.get_context().get_local_world_size()
    return Streamed(
        job.table(["uri", "offset", "size", "column", "part"]),
        job.preprocessing,
        num_threads=max(1, len(os.sched_getaffinity(0)) // beside),
        patience_s=JOB_PATIENCE_S,
        on_bad=tell,
    )


def moments_at(decoded: Decoded, positions: np.ndarray) -> Iterator[np.ndarray]:
    """The moments of the maps of these rows, in ascending order, file by file."""
    start = 0
    for uri in decoded.moments:
        moments = read_moments(uri)
        yield moments[positions[(positions >= start) & (positions < start + len(moments))] - start]
        start += len(moments)


def _open_shards(model: str, shards: tuple[str, ...]) -> Shards:
    """Ranks on one machine share its copies of shards on S3."""
    name = hashlib.blake2b(f"{model} {shards[0]}".encode(), digest_size=8).hexdigest()
    copies = Path(tempfile.gettempdir()) / f"ganad-{name}"
    images = Shards.open(shards, copies)
    ray.train.collective.barrier()
    # What is mapped stays readable, and its room is free again when the last rank has ended, be
    # it killed.
    shutil.rmtree(copies, ignore_errors=True)
    return images
