"""A training that a signal stops says so, ends soon, and resumes."""

import signal
import time
from pathlib import Path

import pytest

from tests.pipelines.processes import start


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_training_with_a_sentence(
    image_folder: Path, tmp_path: Path, number: signal.Signals
) -> None:
    model = tmp_path / "model"
    words = ["train", "ganomaly", str(image_folder / "train"), "--out", str(model), "--no-gpu"]
    keys = ["--set", "image_size=16", "--set", "width=4", "--set", "epochs=100000"]
    with (tmp_path / "said").open("w+b") as said:
        training = start(*words, *keys, stderr=said)
        try:
            deadline = time.monotonic() + 300
            while not list(model.glob("training/tensorboard/*")) and time.monotonic() < deadline:
                time.sleep(0.2)
            began = time.monotonic()
            training.send_signal(number)
            training.wait(60)
        finally:
            training.kill()
    assert time.monotonic() - began < 10  # under three seconds on a machine that is free
    assert training.returncode == 128 + number
    lines = (tmp_path / "said").read_text().splitlines()
    assert lines[-1] == "stopped; run the same command again to continue"
    assert not [line for line in lines if line.startswith("***")], "a stack of C++"
