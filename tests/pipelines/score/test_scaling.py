"""A cluster that has scaled to zero: a job brings its workers, and they go when it has ended."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

PATIENCE_S = 300
SETTINGS = ("image_size=16", "channels=1", "width=8", "batch_size=8", "epochs=3")


def test_a_job_brings_its_workers_and_they_go(
    scaling_cluster: Any, image_folder: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    sets = [word for setting in SETTINGS for word in ("--set", setting)]
    train = ["train", "ganomaly", str(image_folder / "train"), "--out", str(model), *sets]
    head = scaling_cluster.alive()
    assert len(head) == 1
    unsaid = scaling_cluster.ganad("submit", "--", *train)
    assert unsaid.returncode == 1
    assert "ganad: --gpu or --no-gpu is needed: the cluster has no worker yet" in unsaid.stdout
    done = scaling_cluster.ganad("submit", "--", *train, "--no-gpu", "--workers", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    info = json.loads((model / "model.json").read_text())
    assert info["training"]["num_workers"] == 2
    deadline = time.monotonic() + PATIENCE_S
    while scaling_cluster.alive() != head:
        assert time.monotonic() < deadline, "idle workers do not go"
        time.sleep(1)
