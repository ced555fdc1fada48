"""Decode the images of a training job once, into memory-mapped shards that every epoch reads."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from ganad.archive import storage
from ganad.archive.parts import Part
from ganad.archive.shards import write_shard
from ganad.errors import TrainingError
from pipelines.cluster import Resources
from pipelines.graph import Batch, decoded_rows, stream
from pipelines.job import TrainingJob
from pipelines.progress import Meter, say
from pipelines.units import Unit, cut, rows_per_unit


@dataclass(frozen=True)
class Decoded:
    """Shards in the order of the job's rows, and the rows that could not be decoded."""

    shards: tuple[str, ...]
    bad: dict[int, str]
    """Row number -> error; such a row's pixels are zero and must not be used."""


class Writer:
    """Turns a unit into a shard. The errors are written first: a shard that exists is finished."""

    def __init__(self, job: TrainingJob) -> None:
        self.job = job

    def __call__(self, batch: Batch) -> Batch:
        unit = Unit.of(batch)
        preprocessing = self.job.preprocessing
        decoded, _ = decoded_rows(batch, unit.rows(), [preprocessing])
        size = preprocessing.image_size
        pixels = np.zeros((unit.num, preprocessing.channels, size, size), np.uint8)
        errors = {}
        for i, (one,) in enumerate(decoded):
            if one.image is None:
                errors[unit.start + i] = one.error
            else:
                pixels[i] = one.image
        shard, beside = _places(self.job, unit)
        storage.write_json(beside, errors)
        write_shard(shard, pixels)
        return {"num": [unit.num]}


def predecode(job: TrainingJob, resources: Resources) -> Decoded:
    """Make the shards that are missing; raises TrainingError if no image decodes."""
    # Cut for one worker: the shards of an interrupted run fit a resumed one of another size.
    num = rows_per_unit([job.preprocessing], job.num_rows, 1)
    units = cut([Part(job.rows, job.num_rows)], num)
    there = set(storage.list_names(job.place("cache")))
    missing = [unit for unit in units if _places(job, unit)[0].rsplit("/", 1)[1] not in there]
    if missing:
        cores = Resources(max(1, int(resources.num_workers * resources.cpus)), 0, 1)
        with Meter("decoding", sum(unit.num for unit in missing), "images") as meter:
            for row in stream(missing, Writer, {"job": job}, [job.preprocessing], cores):
                meter.update(meter.done + int(row["num"]))
    bad: dict[int, str] = {}
    for unit in units:
        errors = storage.read_json(_places(job, unit)[1])
        bad.update({int(number): error for number, error in errors.items()})
    if len(bad) == job.num_rows:
        raise TrainingError(
            f"{job.facts['source']}: none of its {job.num_rows} images can be read "
            f"({next(iter(bad.values()))}): give images that decode"
        )
    if bad:
        say(f"{len(bad)} images cannot be read and are left out: {json.dumps(bad)[:200]}")
    return Decoded(tuple(_places(job, unit)[0] for unit in units), bad)


def _places(job: TrainingJob, unit: Unit) -> tuple[str, str]:
    stem = f"shard-{unit.start:010d}"
    return job.place("cache", f"{stem}.npy"), job.place("cache", f"{stem}.json")
