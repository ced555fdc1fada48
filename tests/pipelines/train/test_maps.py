"""A training job of a detector that sees dense maps: they are made once, by Ray Data, and kept."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ganad
from pipelines.train.request import TrainRequest
from pipelines.train.run import train
from tests.ganad.detectors.small import MAPS, SMALL

KEYS: dict[str, Any] = {
    **SMALL["ganomaly"],
    **MAPS,
    "image_size": 32,
    "batch_size": 8,
    "epochs": 2,
    "precision": "float32",
    "terms": ["latent", "residual"],
}


@pytest.fixture(scope="module")
def source(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Normal images, a bad one among them."""
    folder = tmp_path_factory.mktemp("archive") / "images"
    shutil.copytree(image_folder / "train", folder)
    (folder / "good" / "020.png").write_bytes(b"not an image")
    return folder


def trained(source: Path, out: Path, workers: int) -> ganad.Model:
    request = TrainRequest(
        "ganomaly", (str(source),), str(out), values=KEYS, workers=workers, gpu=False
    )
    train(request)
    return ganad.load(str(out))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def kept(
    ray_cluster: None, source: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> ganad.Model:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANAD_CACHE", str(cache))
        return trained(source, tmp_path_factory.mktemp("kept") / "model", workers=2)


def test_maps_are_made_once_and_kept_with_their_moments(kept: ganad.Model, cache: Path) -> None:
    (folder,) = cache.iterdir()  # no pixels are kept
    assert folder.name.startswith("maps-")
    shards, moments = sorted(folder.glob("shard-*.npy")), sorted(folder.glob("moments-*.npy"))
    assert len(shards) == len(moments) == len(list(folder.glob("shard-*.json")))
    arrays = [np.load(shard, mmap_mode="r") for shard in shards]
    assert {(array.dtype, array.shape[1:]) for array in arrays} == {
        (np.dtype("float16"), (16, 16, 16))
    }
    unreadable = np.isnan(np.concatenate([np.load(one) for one in moments])).any((1, 2))
    assert unreadable.sum() == 1
    assert kept.training["num_unreadable"] == 1
    epochs = [entry for entry in kept.training["history"] if "epoch" in entry]
    assert epochs[-1]["validation_score"] > 0


def test_maps_that_no_disk_would_hold_train_the_same_model(
    kept: ganad.Model,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("GANAD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GANAD_CACHE_BYTES", "1")
    streamed = trained(source, tmp_path / "model", workers=2)
    assert "dense maps would add" in capsys.readouterr().err
    assert not list((tmp_path / "cache").rglob("shard-*.npy"))
    assert streamed.id == kept.id


def test_one_worker_and_a_notebook_train_what_two_workers_do(
    kept: ganad.Model, source: Path, tmp_path: Path
) -> None:
    alone = trained(source, tmp_path / "model", workers=1)
    with pytest.warns(UserWarning, match="cannot be read"):
        notebook = ganad.fit("ganomaly", str(source), **KEYS)
    images = sorted((source / "good").glob("00*.png"))
    expected = kept.score(images).score
    for model in (alone, notebook):
        np.testing.assert_allclose(model.score(images).score, expected, rtol=1e-3, atol=1e-3)
    theirs = notebook.score(images).score
    np.testing.assert_allclose(theirs, alone.score(images).score, rtol=1e-5, atol=1e-6)
