"""A crossed calibration of a training by gradient: k trainings and one on all images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ganad
from pipelines.train import gradient
from pipelines.train.request import TrainRequest
from pipelines.train.run import train
from tests.pipelines.small_model import SMALL

KEYS: dict[str, Any] = {**SMALL, "epochs": 1, "calibration_folds": 2, "precision": "float32"}


def trained(source: Path, out: Path) -> ganad.Model:
    request = TrainRequest("ganomaly", (str(source),), str(out), values=KEYS, workers=1, gpu=False)
    train(request)
    return ganad.load(str(out))


def test_a_job_that_ends_between_trainings_goes_on_and_gives_the_notebook_s_model(
    ray_cluster: None, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = image_folder / "train", tmp_path / "model"
    begun: list[str | None] = []
    real = gradient._train

    def stopped(job: Any, *others: Any) -> None:
        begun.append(job.fold)
        if len(begun) == 2:
            raise KeyboardInterrupt
        real(job, *others)

    monkeypatch.setattr(gradient, "_train", stopped)
    with pytest.raises(KeyboardInterrupt):
        trained(source, out)
    model = trained(source, out)
    assert begun == ["fold-0", "fold-1", "fold-1", None]
    assert not (out / "training" / "folds").exists()

    notebook = ganad.fit("ganomaly", str(source), **KEYS)
    assert model.calibration is not None
    assert notebook.calibration is not None
    assert model.calibration.folds == 2
    assert set(model.calibration.ids) == set(notebook.calibration.ids)
    np.testing.assert_allclose(model.calibration.scores, notebook.calibration.scores, rtol=1e-3)
    assert model.training["num_train"] == model.training["num_calibration"] == 40
    assert "approximate" in model.training["calibration"]
