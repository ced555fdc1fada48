"""SIGKILL in the middle of the jobs, on real processes; the same command again must finish them."""

import json
import random
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.train.checkpoint import DIGEST, STATE
from tests.pipelines.processes import command_line, family, finished, kill_when, run, scores, start

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

TRAIN = ["--set", "image_size=16", "--set", "channels=1", "--set", "width=8", "--no-gpu"]
NUM_KILLS = 10


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small grey images, enough of them that a job can be caught at work."""
    folder = tmp_path_factory.mktemp("archive")
    rng = np.random.default_rng(0)
    for number in range(1500):
        pixels = rng.integers(0, 256, (24, 24)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:05d}.png")
    return folder


def test_a_killed_training_with_a_damaged_checkpoint_ends_with_the_weights_of_an_undisturbed_one(
    archive: Path, tmp_path: Path
) -> None:
    def arguments(out: str) -> list[str]:
        epochs = ["--set", "epochs=40", "--set", "precision=float32"]
        return ["train", "ganomaly", str(archive), "--out", str(tmp_path / out), *TRAIN, *epochs]

    checkpoints = tmp_path / "killed" / "training" / "checkpoints" / "run"
    digests = f"step_*/{DIGEST}"  # written last
    kill_when(lambda _: len(list(checkpoints.glob(digests))) > 1, *arguments("killed"))
    newest = sorted(checkpoints.glob(f"step_*/{STATE}"))[-1]
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
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
    assert not finished(table)
    scores(table)  # what a reader sees meanwhile are whole parts
    moments = random.Random(0)
    for _ in range(NUM_KILLS):
        if finished(table):  # this one was done before its moment came
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
