"""The benchmark of training, small: that it measures what it says. How fast is not asked here."""

import sys
from pathlib import Path

import pytest
import torch

from ganad.detectors import configure, create
from ganad.detectors.config import GradientConfig
from ganad.detectors.gan.ganomaly import Ganomaly
from ganad.errors import ConfigError
from pipelines.benchmark import training as benchmark_training
from pipelines.benchmark.training import training

SMALL = {"image_size": 16, "channels": 1, "width": 4, "latent": 4, "batch_size": 8}


def test_loops_stand_beside_each_other_and_the_job(ray_cluster: None, image_folder: Path) -> None:
    source = str(image_folder / "train")
    rows = training(source, steps=2, rounds=2, cores=1, workers=(1,), job_steps=8, values=SMALL)
    by_name = {row["loop"]: row for row in rows}
    assert by_name["plain float32 loop"]["times_plain"] == 1.0
    assert {"ganad", "ganad, float32", "job on Ray, workers: 1"} <= set(by_name)
    assert by_name["plain float32 loop"]["by_processor"] == 1.0
    for row in rows:
        assert row["images_per_s"] == pytest.approx(8000 / row["ms_per_step"], rel=0.05)
    assert 0 < by_name["job on Ray, workers: 1"]["ray_share"] < 1
    assert "anomalib" not in by_name


def test_the_plain_loop_trains_the_same_networks_as_ganad(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole passes over the same images lead both to about the same losses."""
    config = configure("ganomaly", {**SMALL, "epochs": 10_000, "precision": "float32"})
    assert isinstance(config, GradientConfig)
    made = []

    def kept(name: str, given: GradientConfig) -> Ganomaly:
        model = create(name, given)
        assert isinstance(model, Ganomaly)
        made.append(model)
        return model

    monkeypatch.setattr(benchmark_training, "create", kept)
    pixels = torch.arange(16 * 256).remainder(251).byte().reshape(16, 1, 16, 16).numpy()
    torch.manual_seed(0)
    for turn in (
        benchmark_training._turns_of_plain(pixels, config),
        benchmark_training._turns_of_ganad(pixels, config),
        benchmark_training._turns_of_ganad(pixels, config, channels_last=False),
    ):
        assert min(turn(100)) > 0
    errors = []
    for model in made:
        model.eval()
        with torch.no_grad():
            x = model.prepare(torch.from_numpy(pixels))
            errors.append((x - model.reconstruct(x)).abs().mean().item())
    untrained = create("ganomaly", config)
    assert isinstance(untrained, Ganomaly)
    before = (x - untrained.reconstruct(x)).abs().mean().item()
    assert max(errors) < 0.9 * before
    assert errors[1] == pytest.approx(errors[0], rel=0.1)
    assert errors[2] == pytest.approx(errors[1], rel=0.01)


def test_a_python_without_anomalib_is_told(image_folder: Path) -> None:
    with pytest.raises(ConfigError, match="^--anomalib .* does not train anomalib's GANomaly"):
        training(
            str(image_folder / "train"), steps=1, rounds=1, values=SMALL, anomalib=sys.executable
        )
