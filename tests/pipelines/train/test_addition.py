"""Normal images added to a fitted Gaussian, without those that it was fitted on."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from ganad import fit, load
from ganad.errors import ConfigError, ModelError, TrainingError
from pipelines.cli.app import main
from pipelines.cli.show import show
from pipelines.train.request import TrainRequest
from pipelines.train.run import train

VALUES: dict[str, Any] = {"image_size": 32, "backbone": {"name": "resnet18", "weights": "random"}}


def halves(image_folder: Path, folder: Path) -> tuple[Path, Path]:
    """The normal images in two folders."""
    images = sorted((image_folder / "train" / "good").iterdir())
    for name, some in (("old", images[:24]), ("new", images[24:])):
        (folder / name).mkdir()
        for image in some:
            shutil.copy(image, folder / name)
    return folder / "old", folder / "new"


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"calibration_folds": 4},
        pytest.param({"image_size": 64, "patch": {"size": 32}}, marks=pytest.mark.slow),
    ],
    ids=["held out", "crossed", "patches"],
)
def test_adding_is_a_fit_to_all_images(
    ray_cluster: None, image_folder: Path, tmp_path: Path, keys: dict[str, Any]
) -> None:
    values = {**VALUES, **keys}
    old, new = halves(image_folder, tmp_path)
    first, both, whole = (str(tmp_path / name) for name in ("first", "both", "whole"))
    train(TrainRequest("gaussian", (str(old),), first, values=values, gpu=False))
    train(TrainRequest("gaussian", (str(old), str(new)), whole, values=values, gpu=False))
    again = [str(tmp_path / "again"), str(new)]
    shutil.copytree(old, again[0])
    shutil.rmtree(old)
    info = train(TrainRequest("gaussian", (str(new),), both, add_to=first, gpu=False))
    assert info["training"]["num_added"] == 16
    assert info["training"]["added_to"] == load(first).id
    counts = json.loads((Path(whole) / "model.json").read_text())["training"]
    for key in ("num_train", "num_calibration", "num_validation"):
        assert info["training"][key] == counts[key]

    found, expected = load(both), load(whole)
    test = sorted((image_folder / "test").rglob("*.png"))
    mine, theirs = (model.score([str(path) for path in test]) for model in (found, expected))
    np.testing.assert_allclose(mine.score, theirs.score, rtol=1e-6)
    assert found.calibration is not None
    if found.calibration.folds:  # earlier images keep the scores of the earlier folds
        np.testing.assert_allclose(mine.p_value, theirs.p_value, atol=0.2)
    else:
        np.testing.assert_array_equal(mine.p_value, theirs.p_value)
    assert expected.calibration is not None
    assert set(found.calibration.ids) == set(expected.calibration.ids)
    assert len(pq.read_table(Path(both) / "training" / "split.parquet")) == 40
    with pytest.raises(TrainingError, match=r"adds nothing: all its 16 images are in .*both"):
        train(
            TrainRequest("gaussian", (str(new),), str(tmp_path / "third"), add_to=both, gpu=False)
        )
    split = Path(first) / "training" / "split.parquet"
    for damaged in (pq.read_table(split).slice(1), None):
        if damaged is None:
            split.write_bytes(split.read_bytes()[:-20])
        else:
            pq.write_table(damaged, split)
        with pytest.raises(ModelError, match=r"^--add-to .* a damaged training/split.parquet"):
            train(TrainRequest("gaussian", (str(new),), str(tmp_path / "4"), add_to=first))


def test_a_calibration_from_features_is_the_one_from_images(
    ray_cluster: None, image_folder: Path, tmp_path: Path
) -> None:
    out = str(tmp_path / "model")
    train(TrainRequest("gaussian", (str(image_folder / "train"),), out, values=VALUES, gpu=False))
    model = load(out)
    assert model.calibration is not None
    rows = pq.read_table(Path(out) / "training" / "split.parquet").to_pylist()
    uris = {row["image_id"]: row["uri"] for row in rows}
    scores = model.score(list(uris.values())).score  # all of them: few are not filled up
    found = dict(zip(uris, scores, strict=True))
    expected = [found[one] for one in model.calibration.ids]
    np.testing.assert_allclose(model.calibration.scores, expected, rtol=1e-9)


def test_a_job_crosses_as_fit_does(
    ray_cluster: None, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = str(image_folder / "train"), str(tmp_path / "model")
    values = {**VALUES, "calibration_folds": 4}
    info = train(TrainRequest("knn", (source,), out, values=values, gpu=False))
    model, expected = load(out), fit("knn", source, **values)
    assert model.calibration is not None
    assert expected.calibration is not None
    assert model.calibration.folds == 4
    theirs = dict(zip(expected.calibration.ids, expected.calibration.scores, strict=True))
    assert set(theirs) == set(model.calibration.ids)
    expected_scores = [theirs[one] for one in model.calibration.ids]
    np.testing.assert_allclose(model.calibration.scores, expected_scores, rtol=1e-4)
    assert info["training"]["num_train"] == info["training"]["num_calibration"] == 40
    assert info["training"]["calibration"].startswith("crossed (40 images in 4 folds)")
    show(out)
    assert "p-values are approximate" in capsys.readouterr().out


def test_what_cannot_be_added_to_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        ConfigError, match=r"^--add-to .* not work for ganomaly, .* \(gaussian, padim do"
    ):
        train(TrainRequest("ganomaly", ("x",), str(tmp_path / "out"), add_to=str(tmp_path)))
    with pytest.raises(ModelError, match="nowhere does not exist"):
        train(
            TrainRequest(
                "gaussian", ("x",), str(tmp_path / "out"), add_to=str(tmp_path / "nowhere")
            )
        )
    with pytest.raises(SystemExit):
        main(["train", "gaussian", "x", "--out", "y", "--add-to", "m", "--set", "seed=1"])
    assert "--add-to m has its own settings" in capsys.readouterr().err
