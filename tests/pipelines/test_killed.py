"""SIGKILL in the middle of the jobs, on real processes; the same command again must finish them."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

TRAIN = ["--set", "image_size=16", "--set", "channels=1", "--set", "width=8", "--no-gpu"]
PATIENCE_S = 240
NUM_KILLS = 20


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pipelines", *arguments]


def run(*arguments: str) -> str:
    """Run a command to its end; returns what it said."""
    result = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    return result.stderr


def start(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def kill_when(condition: Callable[[int], bool], *arguments: str, after_s: float = 0.0) -> None:
    """Start a command, wait until the condition holds for the driver's process id, and kill the
    driver with no chance to tidy up."""
    driver = start(*arguments)
    deadline = time.monotonic() + PATIENCE_S
    while not condition(driver.pid):
        assert driver.poll() is None, "the job ended before it could be killed"
        assert time.monotonic() < deadline, "the job did not get as far as to be killed"
        time.sleep(0.02)
    time.sleep(after_s)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small grey images, enough of them that a job can be caught at work."""
    folder = tmp_path_factory.mktemp("archive")
    rng = np.random.default_rng(0)
    for number in range(1500):
        pixels = rng.integers(0, 256, (24, 24)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:05d}.png")
    return folder


def scores(table: Path) -> dict[str, float]:
    """image_id -> score; fails on an image that is there twice."""
    nothing = pa.table({"image_id": pa.array([], pa.string()), "score": pa.array([], pa.float64())})
    parts = [
        pq.read_table(path, columns=["image_id", "score"], partitioning=None)
        for path in table.glob("model=*/*.parquet")
    ]
    rows = pa.concat_tables([nothing, *parts])
    ids = rows["image_id"].to_pylist()
    assert len(ids) == len(set(ids))
    return dict(zip(ids, rows["score"].to_pylist(), strict=True))


def test_a_killed_training_ends_with_the_weights_of_an_undisturbed_one(
    archive: Path, tmp_path: Path
) -> None:
    def arguments(out: str) -> list[str]:
        epochs = ["--set", "epochs=40", "--set", "precision=float32"]
        return ["train", "ganomaly", str(archive), "--out", str(tmp_path / out), *TRAIN, *epochs]

    checkpoints = tmp_path / "killed" / "training" / "checkpoints" / "run"
    kill_when(lambda _: bool(list(checkpoints.glob("step_*"))), *arguments("killed"))
    assert not (tmp_path / "killed" / "model.json").exists()
    said = run(*arguments("killed"))
    assert "going on from step" in said
    run(*arguments("whole"))
    killed, whole = (
        json.loads((tmp_path / name / "model.json").read_text()) for name in ("killed", "whole")
    )
    assert killed["id"] == whole["id"]


def test_a_scoring_job_killed_at_random_moments_gives_the_undisturbed_table(
    archive: Path, tmp_path: Path
) -> None:
    """Large networks, so that on any machine the job is still at work after its first part."""
    some = tmp_path / "some"
    some.mkdir()
    for path in sorted(archive.iterdir())[:64]:
        shutil.copy(path, some)
    model = str(tmp_path / "model")
    large = ["--set", "image_size=64", "--set", "channels=1", "--set", "width=48", "--no-gpu"]
    run("train", "ganomaly", str(some), "--out", model, *large, "--set", "epochs=1")
    whole, table = tmp_path / "whole", tmp_path / "table"

    def arguments(out: Path) -> list[str]:
        return ["score", model, str(archive), "--out", str(out), "--no-gpu"]

    began = time.monotonic()
    run(*arguments(whole))
    undisturbed_s = time.monotonic() - began
    kill_when(lambda _: bool(list(table.glob("model=*/*.parquet"))), *arguments(table))
    assert not (table / "run.json").exists()
    scores(table)  # what a reader sees meanwhile are whole parts
    moments = random.Random(0)
    for _ in range(NUM_KILLS):
        if (table / "run.json").exists():  # this one was done before its moment came
            assert scores(table) == scores(whole)
            shutil.rmtree(table)
        driver = start(*arguments(table))
        time.sleep(moments.uniform(0, undisturbed_s))
        driver.kill()
        driver.wait()
        scores(table)
    run(*arguments(table))
    assert scores(table) == scores(whole)
    assert len(scores(table)) == 1500
    assert not [path for path in table.rglob(".*") if path.is_file()]


def test_a_killed_driver_leaves_no_ray_behind(archive: Path, tmp_path: Path) -> None:
    seen: set[int] = set()

    def working(driver: int) -> bool:
        seen.update(family(driver))
        return any(b"ray::" in command_line(pid) for pid in seen)

    arguments = ["train", "ganomaly", str(archive), "--out", str(tmp_path / "model"), *TRAIN]
    kill_when(working, *arguments, after_s=1.0)
    deadline = time.monotonic() + 90
    while (left := [pid for pid in seen if command_line(pid)]) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not left, [command_line(pid) for pid in left]


def family(driver: int) -> set[int]:
    """The driver's descendants: Ray's daemons and their workers."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                # pid (name) state parent ...; the name may hold spaces.
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(folder.name)] = int(fields[1])
    found = {driver}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {driver}


def command_line(pid: int) -> bytes:
    """Empty for a process that is gone or only waits for its parent to notice."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
