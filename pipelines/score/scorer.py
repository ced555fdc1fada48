"""The worker that scores units of an archive and writes each model's part of the table."""

from __future__ import annotations

import functools
import json
import os
import socket
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray

from ganad.scores.files import ScoreFile
from ganad.scores.parts import write_part
from ganad.scores.rows import score_rows
from ganad.storage import files as storage
from ganad.storage.retry import JOB_PATIENCE_S, patiently
from pipelines.passes.worker import DecodedUnit, ModelWorker

if TYPE_CHECKING:
    from ganad.model import Model


class Scorer(ModelWorker):
    """Scores one unit at a time with all models and writes its part of each model's table."""

    def setup(
        self, models: Sequence[str], num_threads: int, table: str, engines: Sequence[str] = ()
    ) -> None:
        self.load_models(models, num_threads, engines)
        self.table = table
        self.process = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "restarted": _is_restarted(),
        }

    def work(self, images: DecodedUnit) -> dict[str, Any]:
        """Score the unit. A part that is there already stays as it is: Ray may give out a unit
        again whose result was lost, and an image that had a score may be gone by now."""
        notes: list[dict[str, Any]] = []
        failures: Counter[str] = Counter()
        write_s, retried = 0.0, list[str]()
        for model in self.models:
            number = images.unit.number
            file = ScoreFile(self.table, model.id, number, number)
            if storage.exists(file.uri):
                continue
            scored, note = self._score(model, images)
            if not notes:
                note |= images.decoding
                failures.update(error for error in scored["error"].to_pylist() if error)
            notes.append(note)
            began = time.perf_counter()
            write = functools.partial(write_part, file, scored, [note])
            patiently(write, file.uri, JOB_PATIENCE_S, retried.append)
            write_s += time.perf_counter() - began
        report = {
            "decode_s": images.decoding["decode_s"],
            "score_s": sum(note["score_s"] for note in notes),
            "write_s": write_s,
            "retries": sum(images.decoding["retries"].values()) + len(retried),
            "failures": failures,
            "started": self.started,
            "ready": self.ready,
        }
        return {"report": json.dumps(report)}

    def _score(self, model: Model, images: DecodedUnit) -> tuple[pa.Table, dict[str, Any]]:
        """Rows of the table, and the note of this work."""
        began = time.perf_counter()
        size = self.preprocessings.index(model.preprocessing)
        scored = score_rows(model, images.rows, [row[size] for row in images.decoded])
        return scored, {
            "rows": images.unit.num,
            "began": images.decoding["began"],
            "ended": time.time(),
            "score_s": time.perf_counter() - began,
            "first": images.rows[0]["name"],
            **self.process,
        }


def _is_restarted() -> bool:
    """True if this process replaces one that died."""
    if not ray.is_initialized():
        return False
    context = ray.get_runtime_context()
    return context.get_actor_id() is not None and context.was_current_actor_reconstructed
