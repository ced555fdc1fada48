"""fit(): a model from images in one process."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ganad import fit, load
from ganad.errors import ConfigError, TrainingError

SMALL = {"image_size": 16, "channels": 1, "width": 4, "latent": 4, "batch_size": 8, "epochs": 1}
RANDOM = {"name": "resnet18", "weights": "random"}


def test_a_folder_is_fitted_saved_and_loaded(image_folder: Path, tmp_path: Path) -> None:
    seen = []
    model = fit(
        "ganomaly",
        str(image_folder / "train"),
        out=str(tmp_path / "m"),
        on_progress=lambda progress: seen.append(progress.step),
        **{**SMALL, "epochs": 2},
    )
    assert seen
    page = (tmp_path / "m" / "training.html").read_text()
    assert "generator" in page
    assert page.count("<svg") >= 3, "curves of the losses and the histogram of calibration"
    left = {path.name for path in (tmp_path / "m" / "training").iterdir()}
    assert left == {"curves.json", "grids", "tensorboard"}, "as a job on a cluster leaves them"
    assert "validation_score" in model.training["history"][0]
    assert model.training["num_train"] + model.training["num_calibration"] <= 40
    scores = load(str(tmp_path / "m")).score(str(image_folder / "test"))
    assert len(scores) == 16
    assert np.all((scores.p_value > 0) & (scores.p_value <= 1))


def test_the_same_call_gives_the_same_model(image_folder: Path) -> None:
    source = str(image_folder / "train")
    assert fit("ganomaly", source, **SMALL).id == fit("ganomaly", source, **SMALL).id
    assert fit("ganomaly", source, **SMALL).id != fit("ganomaly", source, **SMALL, seed=1).id


def test_a_tensor_is_fitted_by_either_kind_of_detector() -> None:
    images = torch.randint(0, 256, (64, 3, 40, 40), dtype=torch.uint8)
    for detector, config in (
        ("ganomaly", SMALL),
        ("gaussian", {"image_size": 32, "backbone": RANDOM}),
    ):
        model = fit(detector, images, **config)
        assert np.isfinite(model.score(images[:3]).score).all()


def test_abnormal_images_are_refused_or_left_out(image_folder: Path) -> None:
    with pytest.raises(TrainingError, match="crack 8"):
        fit("ganomaly", str(image_folder / "test"), **SMALL)


def test_unreadable_images_are_left_out_aloud(tmp_path: Path, image_folder: Path) -> None:
    for number, path in enumerate(sorted((image_folder / "train" / "good").iterdir())):
        (tmp_path / f"{number}.png").write_bytes(path.read_bytes())
    (tmp_path / "bad.png").write_bytes(b"bad")
    with pytest.warns(UserWarning, match="1 of 41 images cannot be read"):
        fit("ganomaly", str(tmp_path), **SMALL)


def test_no_calibration_is_said() -> None:
    images = torch.randint(0, 256, (4, 1, 16, 16), dtype=torch.uint8)
    with pytest.warns(UserWarning, match="no p-values"):
        model = fit("ganomaly", images, **{**SMALL, "seed": 5})
    assert np.isnan(model.score(images).p_value).all()


def test_wrong_keys_are_named() -> None:
    with pytest.raises(ConfigError, match="^epoch is no key of ganomaly: did you mean epochs"):
        fit("ganomaly", "anywhere", epoch=3)


def test_types_of_normal_images_reach_the_method_that_learns_from_them(
    image_folder: Path, tmp_path: Path
) -> None:
    pictures = sorted((image_folder / "train" / "good").iterdir())
    for number, picture in enumerate(pictures):
        folder = tmp_path / ("bolt" if number % 2 else "nut")
        folder.mkdir(exist_ok=True)
        (folder / picture.name).write_bytes(picture.read_bytes())
    keys = {"image_size": 32, "generator_width": 8, "discriminator_width": 4, "epochs": 1}
    keys |= {"batch_size": 8, "classes": ["bolt", "nut"]}
    model = fit("acgan", str(tmp_path), **keys)
    assert np.isfinite(model.score(str(tmp_path)).score).all()
    with pytest.raises(TrainingError, match="does not name the label 'nut'"):
        fit("acgan", str(tmp_path), **{**keys, "classes": ["bolt", "washer"]})
