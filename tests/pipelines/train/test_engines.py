"""Trainings whose frozen network an engine runs: the same model but for rounding."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ganad
from ganad.engines import openvino
from ganad.errors import ConfigError, Mismatch
from ganad.saved import read_info
from pipelines.cli.show import show
from pipelines.train.request import TrainRequest
from pipelines.train.run import train
from tests.ganad.detectors.small import MAPS, SMALL

pytestmark = [
    pytest.mark.usefixtures("ray_cluster"),
    pytest.mark.skipif(
        openvino.available() is not None, reason="no OpenVINO: pip install 'ganad[openvino]'"
    ),
]
KEYS: dict[str, Any] = {"image_size": 32, "precision": "float32"}
ON_MAPS: dict[str, Any] = {
    **SMALL["ganomaly"],
    **MAPS,
    "batch_size": 8,
    "epochs": 2,
    "terms": ["latent", "residual"],
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GANAD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def trained(name: str, source: Path, out: Path, engine: str) -> ganad.Model:
    values = {**(ON_MAPS if name == "ganomaly" else {**SMALL[name], "channels": 3}), **KEYS}
    request = TrainRequest(
        name, (str(source),), str(out), values=values, workers=1, gpu=False, engine=engine
    )
    train(request)
    return ganad.load(str(out))


@pytest.mark.parametrize("name", ["gaussian", "ganomaly"])
def test_the_model_is_the_eager_one_but_for_rounding(
    name: str, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, test = image_folder / "train", image_folder / "test"
    eager = trained(name, source, tmp_path / "eager", "eager")
    model = trained(name, source, tmp_path / "model", "openvino")
    facts = read_info(str(tmp_path / "model"))["training"]
    assert facts["backbone_engine"] == "openvino"
    assert [one["engine"] for one in facts["backbone_trials"]] == ["eager", "openvino"]
    assert facts["backbone_trials"][1]["agreement"]["difference"] > 0
    assert [one["engine"] for one in facts["scoring_trials"]] == ["eager", "openvino"]
    assert "backbone_engine" not in read_info(str(tmp_path / "eager"))["training"]
    first, second = eager.score(str(test)), model.score(str(test))
    assert np.corrcoef(first.score, second.score)[0, 1] > 0.999
    # Calibrated by the eager pass, as archives are scored.
    calibration = model.calibration
    assert calibration is not None
    held_out = dict(zip(calibration.ids, calibration.scores, strict=True))
    rows = [row for row in ganad_rows(source) if row["image_id"] in held_out]
    again = model.score([row["uri"] for row in rows]).score
    expected = [held_out[row["image_id"]] for row in rows]
    assert np.allclose(again, expected, rtol=1e-5)
    show(str(tmp_path / "model"))
    shown = " ".join(capsys.readouterr().out.split())
    assert "backbone engine openvino" in shown
    assert "backbone by openvino" in shown
    assert "scoring by openvino" in shown


def ganad_rows(source: Path) -> list[dict[str, Any]]:
    from ganad.archive.listing import list_images

    return list(list_images([str(source)]))


def test_auto_runs_few_images_eager(image_folder: Path, tmp_path: Path) -> None:
    trained("gaussian", image_folder / "train", tmp_path / "model", "auto")
    facts = read_info(str(tmp_path / "model"))["training"]
    assert facts["backbone_engine"] == "eager"
    assert [one["engine"] for one in facts["backbone_trials"]] == ["eager"]


def test_a_training_that_has_begun_keeps_its_engine(image_folder: Path, tmp_path: Path) -> None:
    trained("gaussian", image_folder / "train", tmp_path / "model", "openvino")
    with pytest.raises(Mismatch, match="give a fresh --out, or the command it began with"):
        trained("gaussian", image_folder / "train", tmp_path / "model", "eager")


def test_an_unknown_engine_is_named_before_anything_is_read(
    image_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="--engine turbo: use one of auto, eager"):
        trained("gaussian", image_folder / "train", tmp_path / "model", "turbo")
    assert not (tmp_path / "model").exists()
