import numpy as np
import pytest
import torch

from ganad.detectors.maps.padim import Padim
from ganad.detectors.maps.places import PlaceMoments, pack, unpack
from ganad.errors import TrainingError
from tests.ganad.detectors.maps.test_mapped import build, draw, fitted


def vectors(num: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(5, 1, (num, 3, 4)) @ rng.normal(size=(4, 4))


def test_moments_merge_in_any_order_to_those_of_all_images() -> None:
    x = vectors(30)
    parts = [PlaceMoments.of(x[i : i + 10]) for i in (0, 10, 20)]
    for order in ([0, 1, 2], [2, 0, 1]):
        merged = PlaceMoments.merge([PlaceMoments.empty(3, 4), *(parts[i] for i in order)])
        assert merged.n == 30
        np.testing.assert_allclose(merged.mean, x.mean(0), rtol=1e-12)
        for place in range(3):
            expected = np.cov(x[:, place].T)
            np.testing.assert_allclose(merged.covariance()[place], expected, rtol=1e-10)


def test_symmetric_matrices_are_packed_and_unpacked() -> None:
    matrices = np.random.default_rng(0).normal(size=(2, 5, 5))
    matrices = matrices + matrices.transpose(0, 2, 1)
    packed = pack(matrices)
    assert packed.shape == (2, 15)
    np.testing.assert_array_equal(unpack(packed, 5), matrices)


def test_the_map_is_the_mahalanobis_distance_of_each_place() -> None:
    images = draw(30)
    detector = fitted("padim", images, blur=0.0, num_channels=5)
    assert isinstance(detector, Padim)
    raw = detector.raw_maps(images).double()
    x = raw[:, detector.chosen]
    std = x.std((0, 2, 3), correction=0)
    x = (x / std[:, None, None]).flatten(2)
    place = 5 * 8 + 3
    values = x[:, :, place]
    covariance = torch.cov(values.T) + 0.01 * torch.eye(5, dtype=torch.float64)
    centred = values - values.mean(0)
    expected = torch.einsum("nd,de,ne->n", centred, covariance.inverse(), centred).sqrt()
    places, score = detector.score_places(detector.raw_maps(images))
    assert score is None
    # Over n − 1 in the covariances and n in the spread: equal to a share of 1 / n.
    torch.testing.assert_close(places.flatten(1)[:, place].double(), expected, rtol=0.02, atol=0)


def test_images_added_later_make_the_fit_of_all_together() -> None:
    images = draw(40)
    first, whole = fitted("padim", images[:25]), fitted("padim", images)
    assert isinstance(first, Padim)
    more = first.observe(first.begin(images[25:]), images[25:])
    first.finish(first.merge([first.statistics, more]))
    assert int(first.num_images) == 40
    test = draw(5, seed=1)
    np.testing.assert_allclose(first.score(test).score, whole.score(test).score, rtol=1e-6)


def test_one_image_is_too_few_for_a_covariance() -> None:
    with pytest.raises(TrainingError, match="padim: 1 training images are too few"):
        fitted("padim", draw(1))


def test_channels_are_drawn_from_the_seed() -> None:
    drawn = [build("padim", seed=seed).chosen.tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) == 20
    assert build("padim", num_channels=1000).chosen.tolist() == list(range(64 + 128))


def test_held_out_images_are_scored_from_what_is_kept_of_them() -> None:
    images = draw(20)
    for keys in ({}, {"patch": {"size": 32}}, {"image_score": "mean"}):
        detector = fitted("padim", images, **keys)
        assert isinstance(detector, Padim)
        kept = detector.vectors(images[:3])
        np.testing.assert_array_equal(
            detector.score_vectors(kept), detector.score(images[:3]).score
        )
