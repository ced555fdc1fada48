"""Saved models: round trip, damage, and what a score may depend on."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ganad.calibration import Calibration
from ganad.detectors import configure, create
from ganad.errors import ConfigError, ModelError
from ganad.model import Model, load


@pytest.fixture
def model() -> Model:
    config = configure("ganomaly", {"image_size": 16, "channels": 1, "width": 4, "latent": 4})
    detector = create("ganomaly", config)
    noise = torch.randint(0, 256, (30, 1, 16, 16), dtype=torch.uint8)
    ids = tuple(f"id{i}" for i in range(30))
    return Model(detector, Calibration(detector.score(noise).score, ids), {"num_train": 100})


def picture(seed: int, size: tuple[int, int] = (20, 16)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)
    return Image.fromarray(pixels)


def test_a_loaded_model_scores_as_the_saved_one(model: Model, tmp_path: Path) -> None:
    model.save(str(tmp_path / "m"))
    again = load(str(tmp_path / "m"))
    images = [picture(seed) for seed in range(5)]
    before, after = model.score(images, maps=True), again.score(images, maps=True)
    # Loaded numbers lie elsewhere in memory, and vector code rounds by alignment.
    np.testing.assert_allclose(before.score, after.score, rtol=1e-5)
    np.testing.assert_array_equal(before.p_value, after.p_value)
    for one, other in zip(before.maps, after.maps, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    assert again.id == model.id
    assert again.training == {"num_train": 100}


def test_a_model_folder_holds_no_pickle(model: Model, tmp_path: Path) -> None:
    model.save(str(tmp_path))
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"model.safetensors", "model.json", "calibration.parquet"}


def test_paths_images_arrays_and_tensors_score_alike(model: Model, tmp_path: Path) -> None:
    images = [picture(seed) for seed in range(3)]
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for image, path in zip(images, paths, strict=True):
        image.save(path)
    array = np.stack([np.asarray(image).transpose(2, 0, 1) for image in images])
    expected = model.score(images).score
    for given in (paths, str(tmp_path), array, torch.from_numpy(array), array / 255.0):
        np.testing.assert_array_equal(model.score(given).score, expected)
    np.testing.assert_array_equal(model.score(images[0]).score, expected[:1])
    np.testing.assert_array_equal(model.score(paths[0]).score, expected[:1])
    names = [str(path) for path in paths]
    assert model.score(paths).names == names
    assert model.score(images).names == ["0", "1", "2"]


def test_few_images_score_as_in_a_full_batch(model: Model) -> None:
    images = [picture(seed) for seed in range(40)]
    together = model.score(images)
    for num in (1, 3):
        few = model.score(images[:num])
        np.testing.assert_allclose(few.score, together.score[:num], rtol=1e-5)


def test_scores_become_tables(model: Model, tmp_path: Path) -> None:
    picture(0).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"garbage")
    scores = model.score(str(tmp_path))
    frame = scores.to_pandas()
    assert list(frame.columns) == ["name", "score", "p_value", "latent", "reconstruction", "error"]
    assert list(frame["name"]) == [str(tmp_path / "bad.png"), str(tmp_path / "good.png")]
    assert frame["score"].isna().tolist() == [True, False]
    assert scores.to_arrow()["score"].null_count == 1


def test_a_model_is_one_line(model: Model) -> None:
    assert repr(model) == f"Model({model.id}, 16 px grey, calibrated on 30 images)"


def test_a_bad_image_gets_an_error_and_does_not_shift_the_others(
    model: Model, tmp_path: Path
) -> None:
    for seed in (0, 2):
        picture(seed).save(tmp_path / f"{seed}.png")
    (tmp_path / "1.png").write_bytes(b"garbage")
    scores = model.score(str(tmp_path), maps=True)
    assert [error is None for error in scores.errors] == [True, False, True]
    assert np.isnan(scores.score[1])
    assert scores.maps[1] is None
    assert scores.maps[2] is not None
    assert scores.score[2] == model.score(picture(2)).score[0]


@pytest.mark.parametrize(
    "images",
    [3, {"a": 1}, [1, 2], np.zeros((2, 5, 8, 8)), np.zeros((4, 4)), np.ones((1, 1, 4, 4)) * 7],
)
def test_what_is_no_image_is_refused(model: Model, images: object) -> None:
    with pytest.raises(ConfigError):
        model.score(images)


def test_the_id_changes_with_weights_config_and_calibration(model: Model) -> None:
    ids = {model.id}
    values = {"image_size": 16, "channels": 1, "width": 4, "latent": 4}
    for keys in ({"seed": 1}, {"score_norm": "l1"}):
        detector = create("ganomaly", configure("ganomaly", {**values, **keys}))
        ids.add(Model(detector, model.calibration).id)
    ids.add(Model(model.detector, None).id)
    assert len(ids) == 4


def test_exchanged_files_are_refused(model: Model, tmp_path: Path) -> None:
    model.save(str(tmp_path / "a"))
    other = create("ganomaly", model.detector.config.model_copy(update={"seed": 5}))
    Model(other, model.calibration).save(str(tmp_path / "b"))
    weights = (tmp_path / "b" / "model.safetensors").read_bytes()
    (tmp_path / "a" / "model.safetensors").write_bytes(weights)
    with pytest.raises(ModelError, match="do not belong together"):
        load(str(tmp_path / "a"))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.safetensors", b"short"),
        ("model.json", b"{"),
        ("model.json", b"[]"),
        ("model.json", json.dumps({"format": 99}).encode()),
        ("calibration.parquet", b"not parquet"),
    ],
)
def test_damaged_files_are_refused_in_words(
    model: Model, tmp_path: Path, file: str, content: bytes
) -> None:
    model.save(str(tmp_path))
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ModelError, match="train the model again"):
        load(str(tmp_path))


def test_a_missing_file_is_refused_in_words(model: Model, tmp_path: Path) -> None:
    model.save(str(tmp_path))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="damaged"):
        load(str(tmp_path))


def test_a_model_from_before_a_config_key_existed_is_the_same_model(
    tmp_path: Path, model: Model
) -> None:
    config = model.detector.config.model_dump(mode="json")
    del config["patch"]
    older = Model(
        model.detector, model.calibration, model.training, {**model.info, "config": config}
    )
    folder = older.save(str(tmp_path / "old"))
    again = load(folder)
    assert again.id == older.id != model.id
    again.save(str(tmp_path / "copy"))
    assert load(str(tmp_path / "copy")).id == older.id
