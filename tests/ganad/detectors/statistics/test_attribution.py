"""Heat maps of the detectors over pooled features."""

from typing import Any

import numpy as np
import pytest
import torch

from ganad.detectors import configure, create
from ganad.detectors.base import StatisticsDetector
from ganad.training.fit import fit_statistics
from tests.ganad.detectors.small import InMemory

POOLED = ["gaussian", "knn", "gmm", "ocsvm"]


def draw(num: int, seed: int = 0) -> torch.Tensor:
    """Smooth noise, 64 px."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(num, 3, 8, 8, generator=generator)
    images = torch.nn.functional.interpolate(coarse, (64, 64), mode="bilinear")
    return (255 * images).byte()


RANDOM = {"name": "resnet18", "weights": "random"}


def fitted(name: str, **keys: Any) -> StatisticsDetector[Any, Any]:
    values = {"image_size": 64, "backbone": RANDOM, **keys}
    detector = create(name, configure(name, values))
    assert isinstance(detector, StatisticsDetector)
    fit_statistics(detector, InMemory(draw(40)))
    return detector.eval()


@pytest.mark.parametrize("name", POOLED)
def test_the_mean_of_a_map_is_the_score(name: str) -> None:
    detector = fitted(name)
    images = draw(5, seed=1)
    images[2, :, 10:20, 40:50] = 255
    scores = detector.score(images, maps=True)
    assert scores.maps is not None
    assert scores.maps.shape == (5, 64, 64)
    assert scores.maps.dtype == np.float32
    np.testing.assert_allclose(scores.maps.mean((1, 2)), scores.score, rtol=1e-4)


@pytest.mark.parametrize("name", POOLED)
def test_scores_are_the_same_with_and_without_maps(name: str) -> None:
    detector = fitted(name)
    images = draw(5, seed=1)
    with_maps, without = detector.score(images, maps=True), detector.score(images)
    np.testing.assert_array_equal(with_maps.score, without.score)
    for term, values in without.terms.items():
        np.testing.assert_array_equal(with_maps.terms[term], values)


def test_the_map_of_a_gaussian_is_that_of_its_formula() -> None:
    detector = fitted("gaussian", backbone={**RANDOM, "levels": "layer2"})
    images = draw(2, seed=1)
    (level,) = detector.levels.values()
    (maps,) = detector.extractor.maps(detector.prepare(images))["layer2"]
    inverse = level.whitening.T @ level.whitening
    f = maps.double().mean((2, 3)) - level.mean
    distance = torch.einsum("nd,de,ne->n", f, inverse, f).sqrt()
    centred = maps.double() - level.mean[:, None, None]
    expected = torch.einsum("ndhw,de,ne->nhw", centred, inverse, f) / distance[:, None, None]
    found = torch.from_numpy(detector.score(images, maps=True).maps)
    rows, columns = [0, 0, -1, -1], [0, -1, 0, -1]
    # The map's corners are the places' own values: bilinear resizing repeats them at the edge.
    corners = expected[:, rows, columns].float()
    torch.testing.assert_close(found[:, rows, columns], corners, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(
        torch.from_numpy(detector.score(images).score), distance, rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("name", POOLED)
def test_a_defect_is_hottest_where_it_is(name: str) -> None:
    detector = fitted(
        name, backbone={"name": "tf_efficientnet_lite0", "levels": "blocks.1,blocks.2"}
    )
    images = draw(6, seed=1)
    images[:, :, 40:56, 8:24] = torch.randint(0, 256, (6, 3, 16, 16)).byte()
    maps = detector.score(images, maps=True).maps
    inside = maps[:, 40:56, 8:24].mean((1, 2))
    assert (inside > maps.mean((1, 2))).all()


def test_windows_have_maps_that_are_put_together() -> None:
    detector = fitted("gaussian", patch={"size": 32})
    scores = detector.score(draw(3, seed=1), maps=True)
    assert scores.maps is not None
    windows = scores.maps.reshape(3, 2, 32, 2, 32).mean((2, 4)).reshape(3, 4)
    np.testing.assert_allclose(windows.max(1), scores.score, rtol=1e-4)
