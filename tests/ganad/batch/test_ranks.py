"""Several ranks make the steps of one, for every detector that is trained by gradient.

In float64 the comparison is sharp. In float32 it could not be: where a gradient is zero but for
rounding (that of a bias before batch-norm, say), Adam makes whole steps of it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ganad.detectors import DETECTORS, find
from ganad.detectors.gradient import GradientDetector

STEPS = 20
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "ganomaly": ("ganomaly", {"width": 4, "latent": 6}),
    "ganomaly, bce": ("ganomaly", {"width": 4, "latent": 6, "adversarial": "bce"}),
    "ganomaly, varied": (
        "ganomaly",
        {
            "width": 4,
            "latent": 6,
            "augment": {"flip_horizontal": True, "rotate": 20, "shift": 0.1, "brightness": 0.1},
        },
    ),
    "autoencoder": ("autoencoder", {"width": 4, "latent": 6}),
    "vae": ("vae", {"width": 4, "latent": 6}),
    "egbad": ("egbad", {"width": 4, "features": 16, "latent": 6, "learning_rate": 1e-3}),
    "alad": ("alad", {"width": 4, "latent": 6}),
    "skip_ganomaly": (
        "skip_ganomaly",
        {"image_size": 32, "width": 4, "latent": 6, "input_noise": 0.1},
    ),
    "student": (
        "student",
        {"image_size": 32, "backbone": {"name": "resnet18", "weights": "random"}, "width": 4},
    ),
    "pixelcnn": ("pixelcnn", {"image_size": 8, "layers": 2, "width": 4, "levels": 8}),
    "pixelrnn": (
        "pixelrnn",
        {"image_size": 8, "layers": 1, "hidden": 4, "head_width": 4, "levels": 8},
    ),
    "acgan": (
        "acgan",
        {
            "latent": 6,
            "generator_width": 4,
            "discriminator_width": 4,
            "discriminator_norm": "batch",
            "head": "acgan",
            "classes": ["round", "square"],
        },
    ),
    "anogan": ("anogan", {"width": 4, "latent": 6, "w_fm": 1.0}),
    "anogan, wgan-gp": ("anogan", {"width": 4, "latent": 6, "adversarial": "wgan-gp"}),
    "fanogan": (
        "fanogan",
        {"image_size": 32, "width": 2, "latent": 6, "n_critic": 2, "encoder_share": 0.4},
    ),
    "fanogan, ziz": (
        "fanogan",
        {
            "image_size": 32,
            "width": 2,
            "latent": 6,
            "n_critic": 1,
            "encoder_share": 0.4,
            "encoder_loss": "ziz",
        },
    ),
}
Found = dict[str, dict[str, Any]]


def run(folder: Path, num: int, **keys: Any) -> Path:
    """Train all cases on num processes; returns the file of what came of it."""
    folder.mkdir()
    job = {
        "num": num,
        "store": str(folder / "store"),
        "out": str(folder / "out.pt"),
        "dtype": "float64",
        "steps": STEPS,
        "resume": None,
        "cases": list(CASES.values()),
        **keys,
    }
    (folder / "job.json").write_text(json.dumps(job))
    program = Path(__file__).with_name("ranks_program.py")
    root = Path(__file__).parents[3]
    ranks = [
        subprocess.Popen(
            [sys.executable, str(program), str(folder / "job.json"), str(rank)],
            env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(num)
    ]
    for rank in ranks:
        _, errors = rank.communicate(timeout=500)
        assert rank.returncode == 0, errors
    return folder / "out.pt"


def read(file: Path) -> Found:
    return dict(zip(CASES, torch.load(file, weights_only=True), strict=True))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Found:
    return read(run(tmp_path_factory.mktemp("one") / "job", 1))


@pytest.fixture(scope="module")
def two_then_three(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Interrupted after half the steps on two ranks, which share batches of 10 as 5 and 5, and
    resumed on three, which share them as 4, 3 and 3."""
    folder = tmp_path_factory.mktemp("several")
    half = run(folder / "two", 2, steps=STEPS // 2)
    return read(run(folder / "three", 3, resume=str(half)))


def test_every_gradient_detector_is_tried() -> None:
    trained = {name for name in DETECTORS if issubclass(find(name), GradientDetector)}
    assert {name for name, _ in CASES.values()} == trained


@pytest.mark.parametrize("case", CASES)
def test_ranks_make_the_steps_of_one(case: str, alone: Found, two_then_three: Found) -> None:
    expected, found = alone[case], two_then_three[case]
    assert found["step"] == STEPS
    assert found["detector"].keys() == expected["detector"].keys()
    for key, value in expected["detector"].items():
        torch.testing.assert_close(
            found["detector"][key],
            value,
            rtol=1e-4,
            atol=1e-5,
            msg=lambda text, key=key: key + text,
        )
    assert found["losses"] == pytest.approx(expected["losses"], rel=1e-7, abs=1e-9)
