"""The worker that scores units of an archive and writes each model's part of the table."""

from __future__ import annotations

import functools
import json
import os
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import ray

from ganad.scores import regions
from ganad.scores.files import ScoreFile
from ganad.scores.parts import write_part
from ganad.storage import files as storage
from ganad.storage.retry import JOB_PATIENCE_S, patiently
from pipelines.passes.worker import DecodedUnit, ModelWorker

if TYPE_CHECKING:
    from ganad.scores.together import Scored


class Scorer(ModelWorker):
    """Scores one unit at a time with all models and writes its part of each model's table."""

    def setup(
        self,
        models: Sequence[str],
        num_threads: int,
        table: str,
        engines: Sequence[str] = (),
        levels: Sequence[float | None] = (),
    ) -> None:
        """levels: of each model, the one above which regions are found; None = they are not."""
        self.levels = list(levels) or [None] * len(models)
        self.load_models(models, num_threads, engines, [one is not None for one in self.levels])
        # Not above: the driver names this class and needs no torch.
        from ganad.scores.together import groups

        self.groups = groups(self.models)
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
        for file, found, note in self._missing(images):
            scored = found.rows
            if not notes:
                note |= images.decoding
                failures.update(error for error in scored["error"].to_pylist() if error)
            notes.append(note)
            began = time.perf_counter()
            if found.regions is not None:  # before the scores: see ganad.scores.regions
                first = functools.partial(regions.write, file, found.regions)
                patiently(first, file.regions.uri, JOB_PATIENCE_S, retried.append)
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

    def _missing(self, images: DecodedUnit) -> Iterator[tuple[ScoreFile, Scored, dict[str, Any]]]:
        """The files of the unit that are not there: what they hold, and the note of the work."""
        from ganad.scores.together import score_together

        number = images.unit.number
        for group in self.groups:
            files = {
                position: ScoreFile(self.table, self.models[position].id, number, number)
                for position in group
            }
            wanted = [position for position, file in files.items() if not _is_there(file)]
            if not wanted:
                continue
            models = [self.models[position] for position in wanted]
            size = self.preprocessings.index(models[0].preprocessing)
            decoded = [row[size] for row in images.decoded]
            levels = [self.levels[position] for position in wanted]
            found = score_together(models, images.rows, decoded, levels)
            for position, one in zip(wanted, found, strict=True):
                yield files[position], one, self._note(images, one.seconds)

    def _note(self, images: DecodedUnit, score_s: float) -> dict[str, Any]:
        return {
            "rows": images.unit.num,
            "began": images.decoding["began"],
            "ended": time.time(),
            "score_s": score_s,
            "first": images.rows[0]["name"],
            **self.process,
        }


def _is_there(file: ScoreFile) -> bool:
    return patiently(functools.partial(storage.exists, file.uri), file.uri, JOB_PATIENCE_S)


def _is_restarted() -> bool:
    """True if this process replaces one that died."""
    if not ray.is_initialized():
        return False
    context = ray.get_runtime_context()
    return context.get_actor_id() is not None and context.was_current_actor_reconstructed
