"""Decode the images of a training job once, into memory-mapped shards that every epoch reads. A
detector that sees dense maps of a frozen network has shards of maps instead.

Shards from an earlier run are used if none of their bytes has changed, and made again otherwise.

If the decoded images would fill the disk, they are still decoded once, to find the bad ones, but
not kept: workers then decode each batch when they need it, and train on the same images in the same
order.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from rich.filesize import decimal

from ganad.archive.parts import Part
from ganad.detectors.gradient import GradientDetector
from ganad.errors import ArchiveError, TrainingError
from ganad.images.load import UNFETCHED
from ganad.storage import files as storage
from ganad.storage.records import read_record
from pipelines.cluster.connection import Resources
from pipelines.console.progress import Meter, say
from pipelines.passes.stream import stream
from pipelines.passes.units import Unit, UnitSize, cut, rows_per_unit
from pipelines.train.cache import Cache
from pipelines.train.job import TrainingJob
from pipelines.train.kept import Files, Kept, ShardRecord, Writer, name_of

CHECKED_AT_ONCE = 4
"""Shards, of up to 128 MiB, that are in memory while their digests are compared."""


@dataclass(frozen=True)
class Decoded:
    """The shards in the order of the job's rows, and the rows that could not be decoded."""

    shards: tuple[str, ...] | None
    """None if images are to be streamed."""
    bad: dict[int, str]
    """Row number -> error. The pixels of such a row are zero and must not be used."""
    moments: tuple[str, ...] = ()
    """Files of moments in the order of the job's rows, if the detector sees dense maps."""


def prepare_inputs(
    job: TrainingJob, detector: GradientDetector[Any], resources: Resources
) -> Decoded:
    """What the detector is trained on: raw maps where it sees maps and they can be kept, else
    pixels. Raises TrainingError if no image decodes."""
    if detector.maps is None:
        return predecode(job, resources)
    maps = predecode(job, resources, Kept.maps(job, detector))
    if maps.shards is not None:
        return maps
    pixels = predecode(job, resources)
    return Decoded(pixels.shards, {**maps.bad, **pixels.bad}, maps.moments)


def predecode(job: TrainingJob, resources: Resources, kept: Kept | None = None) -> Decoded:
    """Make the shards that are missing or damaged, of pixels unless kept says otherwise; raises
    TrainingError if no image decodes."""
    kept = kept or Kept.pixels(job)
    cache, kind = Cache.of(job, kept.identity), job.preprocessing
    # Cut as for one worker, so that runs with any number of workers share the shards.
    units = cut([Part(job.rows, job.num_rows)], UnitSize(rows_per_unit([kind], job.num_rows, 1)))
    there = set(storage.list_names(cache.folder))
    records = {unit: _record(cache, unit, there) for unit in units}
    unknown = {unit for unit in units if not _is_settled(records[unit], cache)}
    unknown |= {*units} - _intact(cache, records, there, kept.has_moments)
    missing = {*units} - _intact(cache, records, there, kept.is_intact) | unknown
    needed, room = sum(unit.num for unit in missing) * kept.image_bytes, cache.room()
    keep = kept.reusable and needed <= room
    if kept.reusable and not keep:
        say(
            f"{job.num_rows:,} {kept.words} would add {decimal(needed)} to {cache.folder}, "
            f"which has room for {decimal(room)}: each batch is decoded when it is needed"
        )
    to_do = [unit for unit in units if unit in (missing if keep else unknown)]
    if to_do:
        if not resources.gpus or kept.worker is Writer:
            resources = Resources(max(1, int(resources.num_workers * resources.cpus)), 0, 1)
        arguments = {"preprocessing": kind, "folder": cache.folder, "keep": keep, **kept.arguments}
        total = sum(unit.num for unit in to_do)
        with Meter("decoding" if keep else "checking", total, "images") as meter:
            for row in stream(to_do, kept.worker, arguments, [kind], resources):
                meter.update(meter.done + int(row["num"]))
        there = set(storage.list_names(cache.folder))
        records |= {unit: _record(cache, unit, there) for unit in to_do}
    bad = {
        row: text for record in records.values() if record for row, text in record.errors.items()
    }
    if keep and cache.shared:
        size = decimal(job.num_rows * kept.image_bytes)
        made = "are kept for other runs" if to_do else "of another run are used"
        say(f"{kept.words} {made}: {cache.folder}, {size}")
    if len(bad) == job.num_rows:
        raise TrainingError(
            f"{job.facts['source']}: none of its {job.num_rows} images can be read "
            f"({next(iter(bad.values()))}): give images that decode"
        )
    if bad:
        say(f"{len(bad)} images cannot be read and are left out: {json.dumps(bad)[:200]}")
    files = [Files(cache.folder, unit) for unit in units]
    moments = () if kept.worker is Writer else tuple(file.moments for file in files)
    return Decoded(tuple(file.shard for file in files) if keep else None, bad, moments)


def _record(cache: Cache, unit: Unit, there: set[str]) -> ShardRecord | None:
    """The record of a unit that was decoded before; None if there is none, or a damaged one."""
    beside = Files(cache.folder, unit).record
    if name_of(beside) not in there:
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
    cache: Cache,
    records: dict[Unit, ShardRecord | None],
    there: set[str],
    test: Callable[[Files, ShardRecord, set[str]], bool],
) -> set[Unit]:
    """The units with files that pass a test of Kept."""

    def check(unit: Unit) -> bool:
        record = records[unit]
        return record is not None and test(Files(cache.folder, unit), record, there)

    with ThreadPoolExecutor(CHECKED_AT_ONCE) as pool:
        return {unit for unit, good in zip(records, pool.map(check, records), strict=True) if good}
