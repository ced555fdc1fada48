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

import pyarrow as pa
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
        """Score a piece of the unit."""
        found = list(self._missing(images))
        if found:
            found[0][2].update(images.decoding)
        return {"found": found, "decoding": images.decoding}

    def join(self, pieces: list[dict[str, Any]]) -> dict[str, Any]:
        """Write the parts. One that is there already stays as it is: Ray may give out a unit again
        whose result was lost, and an image that had a score may be gone by now."""
        failures: Counter[str] = Counter()
        parts: dict[ScoreFile, list[tuple[Scored, dict[str, Any]]]] = {}
        for piece in pieces:
            for number, (file, scored, note) in enumerate(piece["found"]):
                parts.setdefault(file, []).append((scored, note))
                if number == 0:
                    failures.update(error for error in scored.rows["error"].to_pylist() if error)
        write_s, retried = 0.0, list[str]()
        for file, some in parts.items():
            if len(some) < len(pieces):  # somebody has written it meanwhile
                continue
            rows = pa.concat_tables(scored.rows for scored, _ in some)
            found = [scored.regions for scored, _ in some if scored.regions is not None]
            began = time.perf_counter()
            if found:  # before the scores: see ganad.scores.regions
                first = functools.partial(regions.write, file, pa.concat_tables(found))
                patiently(first, file.regions.uri, JOB_PATIENCE_S, retried.append)
            write = functools.partial(write_part, file, rows, [note for _, note in some])
            patiently(write, file.uri, JOB_PATIENCE_S, retried.append)
            write_s += time.perf_counter() - began
        decoding = [piece["decoding"] for piece in pieces]
        report = {
            "decode_s": sum(one["decode_s"] for one in decoding),
            "score_s": sum(note["score_s"] for of in parts.values() for _, note in of),
            "write_s": write_s,
            "retries": sum(sum(one["retries"].values()) for one in decoding) + len(retried),
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
            "rows": len(images.rows),
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
