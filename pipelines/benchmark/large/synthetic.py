"""A manifest and an almost finished score table of any number of rows, without an image.

Both are written by what writes real ones and cut as a real job cuts them, so every command reads
them. The names are those of photographs on S3, which nobody asks for: the rows of the one unit that
the table lacks have an error from the listing, as empty files have.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ganad.archive.manifest_file import NAME, Manifest, open_manifest
from ganad.archive.parts import ROWS_PER_GROUP, ROWS_PER_PART, Part, PartWriter, read_table
from ganad.archive.rows import SCHEMA
from ganad.scores.files import ScoreFile
from ganad.scores.parts import write_part, write_schema_mark
from ganad.scores.records import Job, write_job, write_run
from ganad.scores.rows import CARRIED
from ganad.scores.table import SCHEMA as SCORES
from ganad.storage import files as storage
from ganad.storage.records import write_record
from pipelines.console.progress import Meter
from pipelines.passes.units import Unit, UnitSize, cut, rows_per_unit
from pipelines.score.plan import Plan
from pipelines.score.work import ModelFolder

PER_FOLDER = 1000
ID = "0" * 16
"""Of every manifest."""
BUCKET = "s3://bucket/archive"
EMPTY = "the file is empty"
BROKEN, ONE_BROKEN_IN = "cannot be decoded: the file is truncated", 10_007
NUM_CALIBRATION = 1000
NUM_WORKERS = 2
"""Of the job that is said to have begun the table."""
UNIT_S = 10.0
"""That it took for a unit."""


@dataclass(frozen=True)
class Archive:
    """Folders on disk. The table lacks the last unit."""

    manifest: str
    table: str


def write_archive(folder: Path, model: str, num: int) -> Archive:
    """Write num rows below the folder, unless they are there. model: a saved one."""
    manifest, table, mark = (str(folder / name) for name in ("manifest", "table", "complete"))
    saved = ModelFolder.read(model)
    if not storage.exists(mark):
        storage.remove_folder(str(folder))
        rows = rows_per_unit([saved.preprocessing], num, NUM_WORKERS)
        size = UnitSize(rows, ROWS_PER_PART)
        _write_manifest(manifest, num, size)
        most = size.most
        write_job(table, Job(format=2, manifest=ID, rows_per_unit=rows, most_rows_per_unit=most))
        write_run(table, saved.run(manifest, None))
        write_schema_mark(table, saved.id)
        (units,) = Plan(table, [saved.id], size).add(open_manifest(manifest).parts).values()
        _write_table(table, saved.id, units[:-1])
        storage.write_bytes(mark, b"")
    return Archive(manifest, table)


def _write_manifest(folder: str, num: int, size: UnitSize) -> None:
    starts = range(0, num, ROWS_PER_PART)
    last = cut([Part("", min(ROWS_PER_PART, num - start)) for start in starts], size)[-1].num
    writer = PartWriter(folder, "")
    with Meter("writing the manifest", num, "rows") as meter:
        for start in starts:
            stop = min(start + ROWS_PER_PART, num)
            groups = range(start, stop, ROWS_PER_GROUP)
            writer.write(
                _listed(group, min(group + ROWS_PER_GROUP, stop), num - last) for group in groups
            )
            meter.update(stop)
    manifest = Manifest(
        id=ID,
        sources=(BUCKET,),
        images=writer.num_images,
        digest=writer.digest.hexdigest(),
        labels={},
        normal=0,
        abnormal=0,
        errors=writer.num_errors,
        merged=0,
        skipped=0,
        notes=(),
        parts=tuple(writer.parts),
    )
    write_record(storage.join(folder, NAME), manifest)


def _listed(start: int, stop: int, readable: int) -> pa.RecordBatch:
    """Rows start..stop of the manifest; those from `readable` on have an error."""
    numbers = np.arange(start, stop)
    names = pc.binary_join_element_wise(
        _padded(numbers // PER_FOLDER, 6),
        pc.binary_join_element_wise(_padded(numbers, 8), ".jpg", ""),
        "/",
    )
    num = stop - start
    columns = {
        "image_id": hexadecimal(mixed(numbers)),
        "uri": pc.binary_join_element_wise(BUCKET, names, "/"),
        "size": pa.array(20_000 + mixed(numbers) % 200_000, pa.int64()),
        "name": names,
        "error": _where(numbers >= readable, EMPTY),
    }
    return pa.record_batch(
        [columns.get(field.name, pa.nulls(num, field.type)) for field in SCHEMA], schema=SCHEMA
    )


def mixed(numbers: np.ndarray) -> np.ndarray:
    """Different 64 bits for each, without order, as digests are: the finalizer of SplitMix64
    (Steele et al. 2014, Fast splittable pseudorandom number generators). uint64, same shape."""
    z = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))


def hexadecimal(values: np.ndarray) -> pa.Array:
    """16 characters of each; values: uint64 (n,)."""
    digits = pa.py_buffer(values.astype(">u8").tobytes().hex().encode())
    places = np.arange(0, 16 * (len(values) + 1), 16, dtype=np.int32)
    return pa.StringArray.from_buffers(len(values), pa.py_buffer(places), digits)


def _where(chosen: np.ndarray, text: str) -> pa.Array:
    """The text where chosen, bool (n,), is true; else null."""
    return pc.if_else(pa.array(chosen), text, pa.scalar(None, pa.string()))


def _padded(numbers: np.ndarray, width: int) -> pa.Array:
    return pc.utf8_lpad(pa.array(numbers).cast(pa.string()), width, "0")


def _write_table(table: str, model: str, units: Sequence[Unit]) -> None:
    by_part = [list(some) for _, some in itertools.groupby(units, lambda unit: unit.uri)]
    spawn = multiprocessing.get_context("spawn")
    with (
        Meter("writing the table", sum(unit.num for unit in units), "rows") as meter,
        ProcessPoolExecutor(os.cpu_count(), spawn) as pool,
    ):
        for num in pool.map(partial(_write_units, table, model), by_part, chunksize=4):
            meter.update(meter.done + num)


def _write_units(table: str, model: str, units: Sequence[Unit]) -> int:
    """Write the files of units of one part; returns their rows."""
    listed = read_table(units[0].uri, CARRIED)
    for unit in units:
        rows = _scored(model, listed.slice(unit.start, unit.num), unit.number)
        began = unit.number // NUM_WORKERS * UNIT_S
        note = {
            "rows": unit.num,
            "began": began,
            "ended": began + UNIT_S,
            "decode_s": UNIT_S / 2,
            "score_s": UNIT_S / 2,
            "first": rows["name"][0].as_py(),
            "host": "worker",
            "pid": unit.number % NUM_WORKERS,
            "restarted": False,
            "retries": {},
        }
        write_part(ScoreFile(table, model, unit.number, unit.number), rows, [note])
    return sum(unit.num for unit in units)


def _scored(model: str, listed: pa.Table, seed: int) -> pa.Table:
    num = len(listed)
    rng = np.random.default_rng(seed)
    broken = rng.integers(0, ONE_BROKEN_IN, num) == 0
    scores = rng.gamma(4, 1, num)
    p_values = rng.integers(1, NUM_CALIBRATION + 2, num) / (NUM_CALIBRATION + 1)
    # A map of one term for each row; that of a row without a score is null.
    terms = pa.MapArray.from_arrays(
        pa.array(np.arange(num + 1, dtype=np.int32)), pa.repeat("latent", num), pa.array(scores)
    )
    columns = {
        **{name: listed[name] for name in CARRIED},
        "width": pa.array(np.full(num, 640, np.int32), mask=broken),
        "height": pa.array(np.full(num, 480, np.int32), mask=broken),
        "score": pa.array(scores, mask=broken),
        "p_value": pa.array(p_values, mask=broken),
        "terms": pc.if_else(pa.array(~broken), terms, pa.scalar(None, terms.type)),
        "error": _where(broken, BROKEN),
        "scored_at": pa.array(np.full(num, seed * 10**7), pa.timestamp("us", "UTC")),
        "model": pa.repeat(model, num),
    }
    return pa.table([columns[name] for name in SCORES.names], schema=SCORES)
