"""Scoring jobs as the benchmarks run them: commands in processes of their own."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ganad.errors import GanadError
from ganad.scores.records import read_runs


@dataclass(frozen=True)
class ScoringJob:
    """What a job of ganad score told of itself."""

    rate: float
    """Images per second from the first image's beginning to the last one's end."""
    steady: float
    """The same in the middle three fifths of that time, when all workers are at work."""
    fixed_s: float
    """Seconds before the first image and after the last: start of Ray and of workers, checks."""
    seconds: float
    peak: float
    """The driver's resident memory at its highest, MiB."""


LOOK_S = 0.05
"""Between looks at a process's memory."""
ONE_THREAD = """
import sys
from pipelines.score.run import score
model, source, table, workers = sys.argv[1:]
score([model], [source], table, workers=int(workers), cores=1)
"""


def score(
    model: str,
    source: str,
    tables: Path,
    workers: int,
    expected: tuple[int, int],
    *,
    one_thread: bool = False,
    engine: str = "eager",
) -> ScoringJob:
    """Score source into a fresh table in the folder tables. expected: images scored and failed, as
    a figure of a job that did something else would be worth nothing. one_thread: for each worker,
    where the command would share out all cores. Raises GanadError if the engine is not taken."""
    name = source.rstrip("/").rpartition("/")[2]
    table = tables / f"{name}-{time.time_ns()}"
    if one_thread:
        seconds, peak = measured(["-c", ONE_THREAD, model, source, str(table), str(workers)])
    else:
        typed = ["--out", str(table), "--workers", str(workers), "--engine", engine]
        seconds, peak = command(["score", model, source, *typed])
    (run,) = read_runs(str(table)).values()
    if run.engine != engine:
        raise GanadError(
            f"--engines {engine}: scores of {run.model} by {engine} are not those of the eager "
            f"pass: leave {engine} out, or give a --model trained with precision=float32"
        )
    assert (run.counts["scored"], run.counts["failed"]) == expected, run.counts
    periods = run.work["periods"]
    working = sum(period["seconds"] for period in periods)
    rate = sum(expected) / working
    return ScoringJob(rate, _steady(periods), seconds - working, seconds, peak)


def _steady(periods: list[dict[str, Any]]) -> float:
    edge = len(periods) // 5
    middle = periods[edge : len(periods) - edge]
    return float(sum(period["images_per_s"] for period in middle) / len(middle))


def command(arguments: list[str], folder: Path | None = None) -> tuple[float, float]:
    """Run a ganad command in a folder: seconds, and peak of resident memory in MiB."""
    return measured(["-m", "pipelines", *arguments], folder)


def measured(arguments: list[str], folder: Path | None = None) -> tuple[float, float]:
    """Run this Python with these arguments: seconds, and peak of resident memory in MiB."""
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=said, cwd=folder
        )
        peak = 0.0
        while process.returncode is None:
            # Not getrusage's, in which a child begins with what its parent held.
            peak = max(peak, _peak(process.pid))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(LOOK_S)
        seconds = time.perf_counter() - began
        if process.returncode:
            said.seek(0)
            raise GanadError(f"{' '.join(arguments)} failed: {said.read().strip()[-300:]}")
    return seconds, peak


def _peak(process: int) -> float:
    """Resident memory of a running process at its highest, MiB; 0 for one that has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0
