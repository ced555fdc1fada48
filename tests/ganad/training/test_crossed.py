"""A crossed calibration: no image is scored by a model that has seen it."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from ganad import fit, load
from ganad.archive.splits import with_subsets
from ganad.detectors import configure, create
from ganad.detectors.gradient import GradientDetector
from ganad.errors import ConfigError
from ganad.heat import Heat
from ganad.images.protocol import Subset
from ganad.training.fit import fit_statistics
from ganad.training.maps import fit_maps, fit_scale, moments_of
from ganad.training.trainer import Trainer
from tests.ganad.detectors.small import MAPS, SMALL, InMemory, random_images

KEYS: dict[str, Any] = {"image_size": 32, "precision": "float32"}
IMAGES = random_images(40, channels=3)


def split(num: int, seed: int = 0, folds: int = 0) -> dict[str, str]:
    """Name -> subset."""
    names = [str(i) for i in range(num)]
    rows = with_subsets(pa.table({"name": names, "image_id": names}), seed, folds)
    return dict(zip(rows["name"].to_pylist(), rows["part"].to_pylist(), strict=True))


def test_folds_divide_all_images_and_stay_as_images_are_added() -> None:
    few, many = split(500, 3, 5), split(2000, 3, 5)
    counts = Counter(few.values())
    assert set(counts) == {f"fold-{k}" for k in range(5)}
    assert min(counts.values()) > 60
    assert few == {name: many[name] for name in few}
    assert split(500, 4, 5) != few


@pytest.mark.parametrize("name", ["gaussian", "knn"])
def test_each_image_is_scored_by_a_fit_without_its_fold(name: str, tmp_path: Path) -> None:
    values = {**KEYS, **SMALL[name]}
    out = str(tmp_path / "model")
    model = fit(name, IMAGES, out=out, calibration_folds=4, **values)
    assert model.calibration is not None
    found = dict(zip(model.calibration.ids, model.calibration.scores, strict=True))
    folds = split(40, folds=4)
    assert set(found) == set(folds)
    config = configure(name, values)
    for fold in set(folds.values()):
        others = np.array([int(one) for one in folds if folds[one] != fold])
        own = [one for one in folds if folds[one] == fold]
        apart: Any = create(name, config)
        fit_statistics(apart, Subset(InMemory(IMAGES), others))
        scores = apart.score(IMAGES[[int(one) for one in own]]).score
        np.testing.assert_allclose([found[one] for one in own], scores, rtol=1e-4)
    whole: Any = create(name, config)
    fit_statistics(whole, InMemory(IMAGES))
    np.testing.assert_allclose(model.score(IMAGES).score, whole.score(IMAGES).score, rtol=1e-4)

    again = load(out)
    assert again.calibration is not None
    assert again.calibration.folds == 4
    assert again.training["calibration"] == (
        "crossed (40 images in 4 folds): p-values are approximate"
    )
    assert again.training["num_train"] == again.training["num_calibration"] == 40
    assert any("approximate" in note for note in again.calibration.notes())


def test_held_out_images_are_the_default_and_called_exact() -> None:
    model = fit("knn", IMAGES, **KEYS, **SMALL["knn"])
    assert model.calibration is not None
    held_out = [name for name, subset in split(40).items() if subset == "calibration"]
    assert set(model.calibration.ids) == set(held_out)
    assert model.training["calibration"].endswith("p-values are exact")


@pytest.mark.parametrize("keys", [{"channels": 1}, {**MAPS, "terms": ["latent", "residual"]}])
def test_each_image_is_scored_by_networks_that_were_not_trained_on_it(
    keys: dict[str, Any], tmp_path: Path
) -> None:
    values = {**KEYS, **SMALL["ganomaly"], **keys, "batch_size": 8, "epochs": 1}
    images = random_images(40, channels=values["channels"])
    out = str(tmp_path / "model")
    model = fit("ganomaly", images, out=out, calibration_folds=3, **values)
    assert model.calibration is not None
    found = dict(zip(model.calibration.ids, model.calibration.scores, strict=True))
    folds, config, scales = split(40, folds=3), configure("ganomaly", values), []
    assert set(found) == set(folds)
    for fold in sorted(set(folds.values())):
        others = np.array([int(one) for one in folds if folds[one] != fold])
        own = np.array([int(one) for one in folds if folds[one] == fold])
        apart, seen = create("ganomaly", config), InMemory(images)
        assert isinstance(apart, GradientDetector)
        if apart.maps is not None:
            fit_maps(apart, moments_of(apart, seen, others))
        for _ in Trainer(apart, Subset(seen, others)).run():
            pass
        fit_scale(apart, seen, own)
        scales.append(apart.scale)
        scores = apart.score(images[own]).score
        np.testing.assert_allclose([found[str(one)] for one in own], scores, rtol=1e-4, atol=1e-4)
    assert isinstance(model.detector, GradientDetector)
    if model.detector.scale is not None:
        means = torch.stack([one.mean for one in scales])
        torch.testing.assert_close(model.detector.scale.mean, means.mean(0), rtol=1e-4, atol=1e-4)
    whole = fit("ganomaly", images, **values)  # without folds some images are held out
    assert whole.training["num_train"] < model.training["num_train"] == 40
    again = load(out)
    assert again.training["calibration"] == (
        "crossed (40 images in 3 folds): p-values are approximate"
    )
    assert Heat.read(out) is not None


def test_folds_that_would_be_empty_are_refused() -> None:
    with pytest.raises(ConfigError, match="calibration_folds=1 leaves nothing"):
        configure("knn", {"calibration_folds": 1})
    with pytest.raises(ConfigError, match="calibration_folds=21 is too many for 40 normal images"):
        fit("knn", IMAGES, calibration_folds=21, **KEYS, **SMALL["knn"])
