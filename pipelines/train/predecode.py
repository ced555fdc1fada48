"""Decode the images of a training job once, into memory-mapped shards that every epoch reads.

Shards from an earlier run are used if none of their bytes has changed, and made again otherwise.

If the decoded images would fill the disk, they are still decoded once, to find the bad ones, but
not kept: workers then decode each batch when they need it, and train on the same images in the same
order.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.filesize import decimal

from ganad.archive.parts import Part
from ganad.errors import ArchiveError, TrainingError
from ganad.images.decode import Preprocessing
from ganad.images.load import UNFETCHED
from ganad.images.shards import digest_of, is_intact, shard_bytes
from ganad.storage import files as storage
from ganad.storage.records import Record, read_record, write_record
from pipelines.cluster.connection import Resources
from pipelines.console.progress import Meter, say
from pipelines.passes.stream import stream
from pipelines.passes.units import Unit, cut, rows_per_unit
from pipelines.passes.worker import DecodedUnit, UnitWorker
from pipelines.train.cache import Cache
from pipelines.train.job import TrainingJob

CHECKED_AT_ONCE = 4
"""Shards, of up to 128 MiB, that are in memory while their digests are compared."""


@dataclass(frozen=True)
class Decoded:
    """The shards in the order of the job's rows, and the rows that could not be decoded."""

    shards: tuple[str, ...] | None
    """None if images are to be streamed."""
    bad: dict[int, str]
    """Row number -> error. The pixels of such a row are zero and must not be used."""


class ShardRecord(Record):
    """The JSON file beside a shard."""

    errors: dict[int, str]
    """Row number -> why its image could not be decoded."""
    digest: str | None
    """Digest of the shard's bytes; None if images are streamed, without a shard."""
    checksum: str
    """Checksum of this file."""


class Writer(UnitWorker):
    """Turns a unit into a shard. The record is written first: a shard that exists is finished."""

    def setup(self, preprocessing: Preprocessing, folder: str, keep: bool) -> None:
        self.preprocessings, self.folder, self.keep = [preprocessing], folder, keep

    def work(self, images: DecodedUnit) -> dict[str, Any]:
        unit = images.unit
        shard, beside = _places(self.folder, unit)
        data = None
        if self.keep:
            pixels = np.zeros(_shape(unit, self.preprocessings[0]), np.uint8)
            for i, (decoded,) in enumerate(images.decoded):
                if decoded.image is not None:
                    pixels[i] = decoded.image
            data = shard_bytes(pixels)
        errors = {unit.start + i: text for i, text in images.errors.items()}
        digest = None if data is None else digest_of(data)
        write_record(beside, ShardRecord(errors=errors, digest=digest, checksum=""))
        if data is not None:
            storage.write_bytes(shard, data)
        return {}


def predecode(job: TrainingJob, resources: Resources) -> Decoded:
    """Make the shards that are missing or damaged; raises TrainingError if no image decodes."""
    cache, kind = Cache.of(job), job.preprocessing
    # Cut as for one worker, so that runs with any number of workers share the shards.
    units = cut([Part(job.rows, job.num_rows)], rows_per_unit([kind], job.num_rows, 1))
    there = set(storage.list_names(cache.folder))
    records = {unit: _record(cache, unit, there) for unit in units}
    unknown = {unit for unit in units if not _is_settled(records[unit], cache)}
    missing = {*units} - _intact(cache, records, there, kind) | unknown
    needed, room = sum(unit.num for unit in missing) * _image_bytes(kind), cache.room()
    keep = needed <= room
    if not keep:
        say(
            f"{job.num_rows:,} decoded images would add {decimal(needed)} to {cache.folder}, "
            f"which has room for {decimal(room)}: each batch is decoded when it is needed"
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
        records |= {unit: _record(cache, unit, there) for unit in to_do}
    bad = {
        row: text for record in records.values() if record for row, text in record.errors.items()
    }
    if keep and cache.shared:
        size = decimal(job.num_rows * _image_bytes(kind))
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


def _record(cache: Cache, unit: Unit, there: set[str]) -> ShardRecord | None:
    """The record of a unit that was decoded before; None if there is none, or a damaged one."""
    beside = _places(cache.folder, unit)[1]
    if _name(beside) not in there:
        return None
    try:
        return read_record(beside, ShardRecord, "it is made again")
    except ArchiveError:
        return None


def _is_settled(record: ShardRecord | None, cache: Cache) -> bool:
    """True if the errors stay as they are. An image that could not be fetched for an earlier run
    may be there by now; but a run that is resumed goes on with the images that it began with."""
    if record is None:
        return False
    return not cache.shared or not any(e.startswith(UNFETCHED) for e in record.errors.values())


def _intact(
    cache: Cache, records: dict[Unit, ShardRecord | None], there: set[str], kind: Preprocessing
) -> set[Unit]:
    """The units whose shards have not changed since they were written. Reads every shard."""

    def check(unit: Unit) -> bool:
        record, shard = records[unit], _places(cache.folder, unit)[0]
        if record is None or record.digest is None or _name(shard) not in there:
            return False
        return is_intact(shard, _shape(unit, kind), record.digest)

    with ThreadPoolExecutor(CHECKED_AT_ONCE) as pool:
        return {unit for unit, good in zip(records, pool.map(check, records), strict=True) if good}


def _places(folder: str, unit: Unit) -> tuple[str, str]:
    stem = f"shard-{unit.start:010d}"
    return storage.join(folder, f"{stem}.npy"), storage.join(folder, f"{stem}.json")


def _name(uri: str) -> str:
    return uri.rpartition("/")[2]


def _shape(unit: Unit, kind: Preprocessing) -> tuple[int, int, int, int]:
    return unit.num, kind.channels, kind.image_size, kind.image_size


def _image_bytes(kind: Preprocessing) -> int:
    return kind.channels * kind.image_size**2
