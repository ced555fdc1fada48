"""A crossed calibration: no image is scored by a model that has seen it."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ganad import fit, load
from ganad.archive.splits import with_subsets
from ganad.detectors import DETECTORS, configure, create, find
from ganad.detectors.gradient import GradientDetector
from ganad.errors import ConfigError
from ganad.images.protocol import Subset
from ganad.training.fit import fit_statistics
from tests.ganad.detectors.small import SMALL, InMemory, random_images

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


def test_methods_trained_by_gradient_refuse_it() -> None:
    for name in DETECTORS:
        if issubclass(find(name), GradientDetector):
            with pytest.raises(ConfigError, match=r"calibration_folds=5 does not work .*gradient"):
                configure(name, {"calibration_folds": 5})
        else:
            assert configure(name, {"calibration_folds": 5}).calibration_folds == 5


def test_folds_that_would_be_empty_are_refused() -> None:
    with pytest.raises(ConfigError, match="calibration_folds=1 leaves nothing"):
        configure("knn", {"calibration_folds": 1})
    with pytest.raises(ConfigError, match="calibration_folds=21 is too many for 40 normal images"):
        fit("knn", IMAGES, calibration_folds=21, **KEYS, **SMALL["knn"])
