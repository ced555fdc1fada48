"""The actor that scores units of an archive and writes each model's part of the table."""

from __future__ import annotations

import functools
import io
import json
import os
import re
import socket
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray

from ganad.scores.notes import with_note
from ganad.scores.rows import score_rows
from ganad.storage import files as storage
from ganad.storage.retry import JOB_PATIENCE_S, patiently
from pipelines.passes.worker import DecodedUnit, ModelWorker

_PART = re.compile(r"part-\d{6,}\.parquet")


def part_uri(table: str, model_id: str, number: int) -> str:
    """Where the scores that a model gives to a unit are written."""
    return storage.join(table, f"model={model_id}", f"part-{number:06d}.parquet")


def is_part(name: str) -> bool:
    """Whether a file of this name is one that part_uri names."""
    return _PART.fullmatch(name) is not None


def unit_of(name: str) -> int:
    """The number of the unit whose scores are in a part."""
    return int(name.removeprefix("part-").removesuffix(".parquet"))


class Scorer(ModelWorker):
    """Scores one unit at a time with all models and writes its part of each model's table."""

    def setup(self, models: Sequence[str], num_threads: int, table: str) -> None:
        self.load_models(models, num_threads)
        self.table = table
        self.process = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "restarted": _is_restarted(),
        }

    def work(self, images: DecodedUnit) -> dict[str, Any]:
        unit, rows, decoding = images.unit, images.rows, images.decoding
        tables, notes = [], []
        for model in self.models:
            began = time.perf_counter()
            size = self.preprocessings.index(model.preprocessing)
            tables.append(score_rows(model, rows, [row[size] for row in images.decoded]))
            seconds = time.perf_counter() - began
            note = {"rows": unit.num, "began": decoding["began"], "ended": time.time()}
            notes.append({**note, "score_s": seconds, "first": rows[0]["name"], **self.process})
        notes[0] |= decoding
        retried: list[str] = []
        began = time.perf_counter()
        for model, scored, note in zip(self.models, tables, notes, strict=True):
            uri = part_uri(self.table, model.id, unit.number)
            part = with_note(scored, note)
            patiently(functools.partial(write_part, uri, part), uri, JOB_PATIENCE_S, retried.append)
        report = {
            "rows": unit.num,
            "decode_s": decoding["decode_s"],
            "score_s": sum(note["score_s"] for note in notes),
            "write_s": time.perf_counter() - began,
            "retries": sum(decoding["retries"].values()) + len(retried),
            "failures": Counter(error for error in tables[0]["error"].to_pylist() if error),
        }
        return {"report": json.dumps(report)}


def _is_restarted() -> bool:
    """True if this process replaces one that died."""
    if not ray.is_initialized():
        return False
    context = ray.get_runtime_context()
    return context.get_actor_id() is not None and context.was_current_actor_reconstructed


def write_part(uri: str, table: pa.Table) -> None:
    """Write a Parquet file so that a reader sees all of it or nothing."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    storage.write_bytes(uri, sink.getvalue())
