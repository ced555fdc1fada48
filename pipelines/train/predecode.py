"""Decode the images of a training job once, into memory-mapped shards that every epoch reads.

Images that would fill the disk are decoded once as well, to learn which of them are bad, but not
kept: workers then decode each batch when they need it, and train on the same images in the same
order.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from ganad.archive.parts import Part
from ganad.errors import ArchiveError, TrainingError
from ganad.images.decode import Preprocessing
from ganad.images.load import UNFETCHED
from ganad.images.shards import is_whole, write_shard
from ganad.storage import files as storage
from pipelines.cluster.connection import Resources
from pipelines.console.progress import Meter, say
from pipelines.passes.stream import stream
from pipelines.passes.units import Unit, cut, rows_per_unit
from pipelines.passes.worker import DecodedUnit, UnitWorker
from pipelines.train.cache import Cache
from pipelines.train.job import TrainingJob


@dataclass(frozen=True)
class Decoded:
    """Shards in the order of the job's rows, and the rows that could not be decoded."""

    shards: tuple[str, ...] | None
    """None where images are to be streamed."""
    bad: dict[int, str]
    """Row number -> error; such a row's pixels are zero and must not be used."""


class Writer(UnitWorker):
    """Turns a unit into a shard. The errors are written first: a shard that exists is finished."""

    def setup(self, preprocessing: Preprocessing, folder: str, keep: bool) -> None:
        self.preprocessings, self.folder, self.keep = [preprocessing], folder, keep

    def work(self, images: DecodedUnit) -> dict[str, Any]:
        unit = images.unit
        shard, beside = _places(self.folder, unit)
        storage.write_json(beside, {unit.start + i: text for i, text in images.errors.items()})
        if self.keep:
            pixels = np.zeros(_shape(unit, self.preprocessings[0]), np.uint8)
            for i, (decoded,) in enumerate(images.decoded):
                if decoded.image is not None:
                    pixels[i] = decoded.image
            write_shard(shard, pixels)
        return {}


def predecode(job: TrainingJob, resources: Resources) -> Decoded:
    """Make the shards that are missing or damaged; raises TrainingError if no image decodes."""
    cache, kind = Cache.of(job), job.preprocessing
    # Cut for one worker: shards fit a run of any size, the same one resumed or another.
    units = cut([Part(job.rows, job.num_rows)], rows_per_unit([kind], job.num_rows, 1))
    there = set(storage.list_names(cache.folder))
    errors = {unit: _errors(cache, unit, there) for unit in units}
    unknown = {unit for unit in units if not _is_settled(errors[unit], cache)}
    missing = {
        unit for unit in units if unit in unknown or not _has_shard(cache, unit, there, kind)
    }
    needed, room = sum(unit.num for unit in missing) * _image_bytes(kind), cache.room()
    keep = needed <= room
    if not keep:
        say(
            f"{job.num_rows:,} decoded images would add {_in_words(needed)} to {cache.folder}, "
            f"which has room for {_in_words(room)}: each batch is decoded when it is needed"
        )
    to_do = [unit for unit in units if unit in (missing if keep else unknown)]
    if to_do:
        cores = Resources(max(1, int(resources.num_workers * resources.cpus)), 0, 1)
        arguments = {"preprocessing": kind, "folder": cache.folder, "keep": keep}
        total = sum(unit.num for unit in to_do)
        with Meter("decoding" if keep else "checking", total, "images") as meter:
            for row in stream(to_do, Writer, arguments, [kind], cores):
                meter.update(meter.done + int(row["num"]))
        there = set(storage.list_names(cache.folder))
        errors |= {unit: _errors(cache, unit, there) for unit in to_do}
    bad = {int(row): error for found in errors.values() for row, error in (found or {}).items()}
    if keep and cache.shared:
        size = _in_words(job.num_rows * _image_bytes(kind))
        made = "are kept for other runs" if to_do else "of another run are used"
        say(f"decoded images {made}: {cache.folder}, {size}")
    if len(bad) == job.num_rows:
        raise TrainingError(
            f"{job.facts['source']}: none of its {job.num_rows} images can be read "
            f"({next(iter(bad.values()))}): give images that decode"
        )
    if bad:
        say(f"{len(bad)} images cannot be read and are left out: {json.dumps(bad)[:200]}")
    shards = tuple(_places(cache.folder, unit)[0] for unit in units)
    return Decoded(shards if keep else None, bad)


def _errors(cache: Cache, unit: Unit, there: set[str]) -> dict[str, str] | None:
    """Row number -> error of a unit that was decoded before; None for one that was not."""
    beside = _places(cache.folder, unit)[1]
    if _name(beside) not in there:
        return None
    try:
        found = storage.read_json(beside)
    except ArchiveError:  # damaged: it is made again
        return None
    return found if isinstance(found, dict) else None


def _is_settled(errors: dict[str, str] | None, cache: Cache) -> bool:
    """Whether they need not be looked for again. What could not be fetched for an earlier run may
    be there by now; a run that is resumed goes on with the images that it began with."""
    if errors is None:
        return False
    return not cache.shared or not any(e.startswith(UNFETCHED) for e in errors.values())


def _has_shard(cache: Cache, unit: Unit, there: set[str], kind: Preprocessing) -> bool:
    shard = _places(cache.folder, unit)[0]
    return _name(shard) in there and is_whole(shard, _shape(unit, kind))


def _places(folder: str, unit: Unit) -> tuple[str, str]:
    stem = f"shard-{unit.start:010d}"
    return storage.join(folder, f"{stem}.npy"), storage.join(folder, f"{stem}.json")


def _name(uri: str) -> str:
    return uri.rpartition("/")[2]


def _shape(unit: Unit, kind: Preprocessing) -> tuple[int, int, int, int]:
    return unit.num, kind.channels, kind.image_size, kind.image_size


def _image_bytes(kind: Preprocessing) -> int:
    return kind.channels * kind.image_size**2


def _in_words(num: int) -> str:
    return f"{num / 1e9:,.1f} GB" if num >= 1e9 else f"{num / 1e6:,.1f} MB"
