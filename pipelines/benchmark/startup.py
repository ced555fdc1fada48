"""Time and memory of the commands that need no network. Run: ganad benchmark startup

Most of it is what a command imports: they must load neither torch nor timm nor Ray.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from ganad.errors import GanadError
from pipelines.benchmark.data import write_digits
from pipelines.benchmark.processes import command
from pipelines.console.progress import say

LAUNCHER = """
import json, os, sys, time
began = time.perf_counter()
null = os.open(os.devnull, os.O_WRONLY)
silent = [(os.POSIX_SPAWN_DUP2, null, 1), (os.POSIX_SPAWN_DUP2, null, 2)]
command = [sys.executable, *sys.argv[1:]]
child = os.posix_spawn(sys.executable, command, os.environ, file_actions=silent)
_, status, usage = os.wait4(child, 0)
wall = time.perf_counter() - began
print(json.dumps([status, usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024]))
"""
"""Measures one process from outside. Linux counts the memory of the process that starts another one
in the peak of the latter: this one is smaller than any command."""
NO_CLUSTER = ["--address", "http://127.0.0.1:9"]
UNREACHABLE = 1
"""Exit status of a command that finds no cluster at its address."""


def startup(rounds: int) -> list[dict[str, Any]]:
    """A row per command: processor and wall seconds (medians over rounds), peak memory in MiB.

    A small model is trained and a table scored first, for the commands that read them. Commands
    that ask a cluster find none here; they report it after the same imports.
    """
    with tempfile.TemporaryDirectory(prefix="ganad-") as name:
        folder = Path(name)
        write_digits(folder / "digits")
        settings = ("image_size=16", "channels=1", "width=4", "epochs=1")
        train = ["train", "ganomaly", "digits/train", "--out", "model", "--no-gpu"]
        _run(folder, [*train, *(word for one in settings for word in ("--set", one))])
        _run(folder, ["score", "model", "digits/test", "--out", "scores", "--no-gpu"])
        rows = []
        for words, status in _commands():
            rows.append(_row(folder, words, status, rounds))
            say(f"{rows[-1]['command']}: {rows[-1]['processor_s']} s")
    return rows


def _commands() -> Iterator[tuple[list[str], int]]:
    """Words of each command, and the exit status that it must have."""
    yield ["--help"], 0
    yield ["detectors"], 0
    yield ["show", "model"], 0
    yield ["show", "scores"], 0
    yield ["query", "scores", "--top", "3"], 0
    yield ["query", "scores", "SELECT count(*) FROM scores"], 0
    yield ["evaluate", "scores"], 0
    yield ["jobs", *NO_CLUSTER], UNREACHABLE
    yield ["logs", "some-job", *NO_CLUSTER], UNREACHABLE
    yield ["index", "digits/test", "--out", "manifest", "--dry-run"], 0
    yield ["train", "ganomaly", "digits/train", "--out", "new", "--dry-run"], 0
    yield ["train", "knn", "digits/train", "--out", "new", "--dry-run"], 0
    yield ["score", "model", "digits/test", "--out", "new", "--dry-run"], 0
    yield ["submit", "--dry-run", "--", "train", "vae", "s3://b/good", "--out", "s3://b/model"], 0


def _run(folder: Path, words: list[str]) -> None:
    say(f"ganad {' '.join(words)}")
    command(words, folder)


def _row(folder: Path, words: list[str], expected: int, rounds: int) -> dict[str, Any]:
    measured = [_measure(folder, words, expected) for _ in range(rounds)]
    processor, wall, peak = (median(values) for values in zip(*measured, strict=True))
    return {
        "command": f"ganad {' '.join(words)}",
        "processor_s": round(processor, 2),
        "wall_s": round(wall, 2),
        "peak_mib": round(peak),
    }


def _measure(folder: Path, words: list[str], expected: int) -> tuple[float, float, float]:
    """Processor seconds, wall seconds and peak MiB of one run of a command."""
    launch = [sys.executable, "-c", LAUNCHER, "-m", "pipelines", *words]
    done = subprocess.run(launch, cwd=folder, capture_output=True, text=True, check=True)
    status, processor, wall, peak = json.loads(done.stdout)
    if status >> 8 != expected:
        raise GanadError(f"ganad {' '.join(words)} ended with status {status >> 8}: try it alone")
    return processor, wall, peak
