import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from ganad.detectors.maps.dictionary import Dictionary
from ganad.errors import TrainingError
from tests.ganad.detectors.maps.test_mapped import build, draw, fitted


def unit(detector: Dictionary, images: torch.Tensor) -> np.ndarray:
    """Vectors of all places, divided by their L1 norms, float64 (n, C)."""
    raw = detector.raw_maps(images).double().permute(0, 2, 3, 1).flatten(0, 2)
    return (raw / raw.abs().sum(1, keepdim=True)).numpy()


@pytest.fixture(scope="module")
def detector() -> Dictionary:
    found = fitted("dictionary", draw(30), entries=40, neighbours=3)
    assert isinstance(found, Dictionary)
    return found


def test_components_are_those_of_scikit_learn_for_all_places(detector: Dictionary) -> None:
    known = PCA(n_components=0.95, svd_solver="full").fit(unit(detector, draw(30)))
    kept = detector.facts()["num_components"]
    assert kept == known.n_components_ < detector.maps.channels
    np.testing.assert_allclose(detector.mean, known.mean_, rtol=1e-4, atol=1e-7)
    along = np.abs(known.components_ @ detector.axes[:kept].double().numpy().T)
    np.testing.assert_allclose(np.diag(along), 1, atol=1e-4)


def test_the_map_is_the_mean_distance_to_the_nearest_entries(detector: Dictionary) -> None:
    images = draw(3, seed=1)
    places, score = detector.score_places(detector.raw_maps(images))
    assert score is None
    projected = torch.from_numpy(unit(detector, images) - detector.mean.double().numpy())
    projected = projected @ detector.axes.double().T
    distances = torch.cdist(projected, detector.entries.double()).sort(1).values
    expected = distances[:, :3].mean(1).view(3, 8, 8)
    torch.testing.assert_close(places.double(), expected, rtol=1e-3, atol=1e-6)


def test_pieces_in_any_order_make_the_same_model_to_rounding() -> None:
    images = draw(30)
    whole = fitted("dictionary", images, max_places=500)
    other = build("dictionary", max_places=500)
    start = other.begin(images[:3])
    pieces = [other.observe(start, part) for part in images.split([7, 3, 20])]
    other.finish(other.merge([other.merge([pieces[2], pieces[0]]), pieces[1]]))
    test = draw(5, seed=1)
    np.testing.assert_allclose(other.score(test).score, whole.score(test).score, rtol=1e-4)
    assert other.facts() == whole.facts()


def test_brighter_features_of_the_same_direction_score_the_same(detector: Dictionary) -> None:
    raw = detector.raw_maps(draw(2, seed=1))
    dark, bright = detector.score_places(raw)[0], detector.score_places(3 * raw)[0]
    torch.testing.assert_close(dark, bright, rtol=1e-3, atol=1e-6)


def test_images_without_any_difference_are_refused() -> None:
    blank = torch.zeros(3, 3, 64, 64, dtype=torch.uint8)
    detector = build("dictionary")
    detector.maps.extractor.network.conv1.weight.data.zero_()
    with pytest.raises(TrainingError, match="all places of the training images are alike"):
        detector.finish(detector.observe(detector.begin(blank), blank))


def stripes(num: int, seed: int) -> torch.Tensor:
    """Horizontal ones, eight pixels to a period, each image with a phase of its own and noise."""
    generator = torch.Generator().manual_seed(seed)
    phases = 6.28 * torch.rand(num, 1, 1, 1, generator=generator)
    waves = torch.sin(torch.arange(64)[:, None] * 6.28 / 8 + phases).expand(num, 3, 64, 64)
    noise = torch.rand(num, 3, 64, 64, generator=generator)
    return (110 + 80 * waves + 40 * noise).to(torch.uint8)


def test_a_texture_that_is_turned_is_hot_where_it_is() -> None:
    detector = fitted("dictionary", stripes(30, seed=0))
    images = stripes(4, seed=1)
    turned = images.clone()
    turned[:, :, 32:56, 8:32] = images.transpose(2, 3)[:, :, 32:56, 8:32]
    before, after = detector.score(images), detector.score(turned, maps=True)
    assert (after.score > before.score).all()
    for heat in after.maps:
        top, left = np.unravel_index(heat.argmax(), heat.shape)
        assert 30 <= top < 58
        assert 6 <= left < 34
