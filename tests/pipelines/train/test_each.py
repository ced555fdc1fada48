"""A model for each category folder."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from PIL import Image

from ganad import load
from ganad.errors import ArchiveError, ConfigError, TrainingError
from pipelines.cluster.connection import jobs_at_once
from pipelines.train.categories import categories
from pipelines.train.each import train_each
from pipelines.train.request import TrainRequest
from pipelines.train.run import train

VALUES: dict[str, Any] = {
    "image_size": 16,
    "channels": 1,
    "width": 4,
    "latent": 4,
    "batch_size": 8,
    "epochs": 1,
    "precision": "float32",
}


def category(folder: Path, name: str, num: int, seed: int) -> Path:
    """A category in MVTec's layout."""
    rng = np.random.default_rng(seed)
    for place in ("train/good", "test/good", "test/hole"):
        (folder / name / place).mkdir(parents=True)
        for number in range(num):
            pixels = rng.integers(0, 256, (16, 16)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / place / f"{number:03d}.png")
    return folder / name


@pytest.mark.slow
def test_each_category_gets_the_model_that_it_gets_alone(
    ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts, out = tmp_path / "parts", tmp_path / "models"
    for seed, name in enumerate(("bottle", "cable")):
        category(parts, name, 30, seed)
    (parts / "empty" / "train" / "good").mkdir(parents=True)
    with pytest.raises(TrainingError, match=r"^1 of 3 categories failed, the first: empty: "):
        train_each(TrainRequest("ganomaly", (str(parts),), str(out), values=VALUES, gpu=False))
    rows = {row["category"]: row for row in json.loads((out / "models.json").read_text())}
    assert set(rows) == {"bottle", "cable", "empty"}
    assert rows["empty"]["error"]
    assert rows["bottle"]["model"] == load(str(out / "bottle")).id
    assert rows["bottle"]["num_train"] < 30  # of train/good alone

    shutil.rmtree(parts / "empty")
    capsys.readouterr()
    again = train_each(TrainRequest("ganomaly", (str(parts),), str(out), values=VALUES, gpu=False))
    assert again == [rows["bottle"], rows["cable"]]  # nothing is done twice
    (out / "models.json").write_text('[{"model": 3}]')
    with pytest.raises(ArchiveError, match=r"models.json: is damaged .*; delete it, and run"):
        train_each(TrainRequest("ganomaly", (str(parts),), str(out), values=VALUES, gpu=False))
    alone = str(tmp_path / "alone")
    source = [str(parts / "cable")]
    # On as many threads: sums depend on them in the last bits.
    info = train(
        TrainRequest("ganomaly", source, alone, values=VALUES, workers=1, gpu=False, cores=1)
    )
    assert info["id"] == rows["cable"]["model"]


def test_as_many_jobs_as_there_are_cores_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def cluster(*nodes: dict[str, float]) -> None:
        found = [{"Alive": True, "Resources": node} for node in nodes]
        monkeypatch.setattr(ray, "nodes", lambda: found)

    cluster({"CPU": 8.0})
    assert jobs_at_once(15, 1, None) == (8, 1)
    assert jobs_at_once(3, 1, None) == (3, 2)
    assert jobs_at_once(15, 4, None) == (2, 1)
    assert jobs_at_once(15, 20, None) == (1, 1)
    cluster({"CPU": 4.0}, {"CPU": 4.0})
    assert jobs_at_once(3, 1, None) == (3, 2)  # two cores each: no worker spans two nodes
    cluster({"CPU": 0.0}, {"CPU": 32.0, "GPU": 4.0})
    assert jobs_at_once(15, 1, None) == (4, 8)
    assert jobs_at_once(15, 2, True) == (2, 8)
    assert jobs_at_once(15, 1, False) == (15, 2)


def test_categories_are_the_folders_in_one_folder(tmp_path: Path) -> None:
    for name in ("wood", "cable", ".cache"):
        (tmp_path / "parts" / name).mkdir(parents=True)
    (tmp_path / "parts" / "readme.txt").touch()
    assert categories([str(tmp_path / "parts")]) == (str(tmp_path / "parts"), ["cable", "wood"])
    with pytest.raises(ConfigError, match=r"wood holds no folders"):
        categories([str(tmp_path / "parts" / "wood")])
    with pytest.raises(ConfigError, match=r"a b names several sources: give --each one folder"):
        categories(["a", "b"])
    with pytest.raises(ConfigError, match=r"bottle is a category itself.*Leave --each out"):
        categories([str(category(tmp_path, "bottle", 1, 0))])
