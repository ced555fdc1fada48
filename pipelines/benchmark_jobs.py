"""Scoring jobs as the benchmarks run them: commands in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ganad.errors import GanadError


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


ONE_THREAD = """
import sys
from pipelines.score import score
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
) -> ScoringJob:
    """Score source into a fresh table in the folder tables. expected: images scored and failed, as
    a figure of a job that did something else would be worth nothing. one_thread: for each worker,
    where the command would share out all cores."""
    name = source.rstrip("/").rpartition("/")[2]
    table = tables / f"{name}-{time.time_ns()}"
    if one_thread:
        seconds, peak = measured(["-c", ONE_THREAD, model, source, str(table), str(workers)])
    else:
        seconds, peak = command(
            ["score", model, source, "--out", str(table), "--workers", str(workers)]
        )
    run = json.loads((table / "run.json").read_text())
    (count,) = run["counts"].values()
    assert (count["scored"], count["failed"]) == expected, count
    periods = run["work"]["periods"]
    working = sum(period["seconds"] for period in periods)
    rate = sum(expected) / working
    return ScoringJob(rate, _steady(periods), seconds - working, seconds, peak)


def _steady(periods: list[dict[str, Any]]) -> float:
    edge = len(periods) // 5
    middle = periods[edge : len(periods) - edge]
    return float(sum(period["images_per_s"] for period in middle) / len(middle))


def command(arguments: list[str]) -> tuple[float, float]:
    """Run a ganad command: seconds, and peak of resident memory in MiB."""
    return measured(["-m", "pipelines", *arguments])


def measured(arguments: list[str]) -> tuple[float, float]:
    """Run this Python with these arguments: seconds, and peak of resident memory in MiB."""
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen([sys.executable, *arguments], stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise GanadError(f"{' '.join(arguments)} failed: {said.read().strip()[-300:]}")
    return seconds, usage.ru_maxrss / 1024
