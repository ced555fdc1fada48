"""Start and end of a scoring job: where the seconds of a small table go. Run: ganad benchmark start

The command is measured from outside, its moments come from its own record. What other processes do
meanwhile counts as well, so each round tells the machine's load average.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from ganad.errors import GanadError
from ganad.scores.records import Run, read_runs
from pipelines.benchmark.data import write_digits
from pipelines.benchmark.scoring_data import untrained
from pipelines.console.progress import say

PROGRAM_LOADED, ENDED = "program loaded", "process ended"


def job_start(
    rounds: int, workers: int | None = None, model: str | None = None
) -> list[dict[str, Any]]:
    """A row per moment of a job over 502 small images: medians over rounds.

    at_s: seconds since the command was started. step_s: since the moment before it. model: a saved
    one; None = an untrained GANomaly of 64 pixels.
    """
    measured: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="ganad-") as name:
        folder = Path(name)
        write_digits(folder / "digits")
        model = str(Path(model).absolute()) if model else untrained(folder / "model")
        for number in range(rounds):
            load = os.getloadavg()[0]
            measured.append(
                _measure(model, folder / "digits" / "test", folder / str(number), workers)
            )
            took = measured[-1][ENDED]
            say(f"round {number + 1} of {rounds}: {took:.1f} s at a load average of {load:.1f}")
    rows, before = [], 0.0
    for moment in sorted(measured[0], key=lambda key: median(one[key] for one in measured)):
        at = median(one[moment] for one in measured)
        rows.append({"moment": moment, "at_s": round(at, 2), "step_s": round(at - before, 2)})
        before = at
    return rows


def _measure(model: str, images: Path, table: Path, workers: int | None) -> dict[str, float]:
    """Moments of one job -> seconds since its process was started."""
    words = ["score", model, str(images), "--out", str(table), "--no-gpu"]
    words += [] if workers is None else ["--workers", str(workers)]
    began = time.time()
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", *words], capture_output=True, text=True, check=False
    )
    ended = time.time() - began
    if done.returncode:
        raise GanadError(f"ganad {' '.join(words)} failed: {done.stderr.strip()[-300:]}")
    (run,) = read_runs(str(table)).values()
    loaded = _began(run) - began
    moments = {name: loaded + at for name, at in run.timings["moments"].items()}
    return {PROGRAM_LOADED: loaded, **moments, ENDED: ended}


def _began(run: Run) -> float:
    """When the job began, in seconds since 1970."""
    assert run.finished_at is not None
    return run.finished_at.timestamp() - float(run.timings["wall_s"])
