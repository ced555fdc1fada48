import numpy as np
import pytest
import torch

from ganad.detectors import configure
from ganad.detectors.maps.deep_anomaly import DeepAnomaly
from ganad.detectors.maps.sparse import encode, train
from ganad.errors import ConfigError, TrainingError
from tests.ganad.detectors.maps.test_mapped import build, draw, fitted


@pytest.fixture(scope="module")
def detector() -> DeepAnomaly:
    found = fitted("deep_anomaly", draw(40))
    assert isinstance(found, DeepAnomaly)
    return found


def test_thresholds_are_quantiles_of_images_that_are_held_out(detector: DeepAnomaly) -> None:
    images = draw(40)
    statistics = detector.observe(detector.begin(images), images)
    num = statistics.held_out.num_images
    assert 2 <= num <= 16
    assert statistics.moments.n == (40 - num) * 64
    vectors = torch.from_numpy(statistics.held_out.vectors)
    first = ((vectors - detector.mean) @ detector.whitening.T).norm(dim=1).numpy()
    alpha, beta, phi = detector.thresholds.tolist()
    np.testing.assert_allclose([alpha, beta], np.quantile(first, [0.95, 0.999]), rtol=1e-4)
    assert phi > 0
    facts = detector.facts()
    assert (facts["alpha"], facts["beta"], facts["phi"]) == (alpha, beta, phi)


def test_the_second_gaussian_decides_only_where_the_first_is_in_doubt(
    detector: DeepAnomaly,
) -> None:
    raw = detector.raw_maps(torch.cat([draw(30, seed=1), 255 - draw(2)]))
    vectors = raw.flatten(2).transpose(1, 2)
    centred = (vectors - detector.mean).double()
    inverse = detector.whitening.double().T @ detector.whitening.double()
    first = torch.einsum("npc,cd,npd->np", centred, inverse, centred).sqrt()
    places = detector.score_places(raw)[0].flatten(1).double()
    alpha, beta, phi = detector.thresholds.double()
    sure = (first < alpha - 1e-3) | (first > beta + 1e-3)
    doubtful = (first > alpha + 1e-3) & (first < beta - 1e-3)
    torch.testing.assert_close(places[sure], first[sure], rtol=1e-3, atol=1e-3)
    assert doubtful.any()
    assert ((places[doubtful] >= alpha) & (places[doubtful] <= beta)).all()
    second = detector._distances(vectors)[1].double()[doubtful]
    np.testing.assert_array_equal(places[doubtful] > (alpha + beta) / 2, second > phi)


def test_pieces_in_any_order_make_the_same_model_to_rounding() -> None:
    images = draw(40)
    whole = fitted("deep_anomaly", images, max_places=500, steps=20)
    other = build("deep_anomaly", max_places=500, steps=20)
    start = other.begin(images[:3])
    pieces = [other.observe(start, part) for part in images.split([9, 3, 28])]
    other.finish(other.merge([other.merge([pieces[2], pieces[0]]), pieces[1]]))
    test = draw(5, seed=1)
    np.testing.assert_allclose(other.score(test).score, whole.score(test).score, rtol=1e-3)


def test_codes_are_sparse_and_keep_what_vectors_hold() -> None:
    rng = np.random.default_rng(0)
    vectors = torch.from_numpy(rng.normal(size=(3000, 2)) @ rng.normal(size=(2, 6))).float()
    (weights, bias), (back, offset) = train(vectors, 30, 0.05, 0.3, 1500, seed=0)
    codes = encode(vectors, weights, bias)
    rebuilt = codes @ back.T + offset
    assert (vectors - rebuilt).square().mean() < 0.2 * vectors.var()
    assert 0.02 < codes.mean() < 0.1


def test_images_too_few_to_hold_one_out_are_refused() -> None:
    with pytest.raises(TrainingError, match="1 training images are too few to hold one in 5 out"):
        fitted("deep_anomaly", draw(1))


def test_alpha_must_be_less_than_beta() -> None:
    with pytest.raises(ConfigError, match=r"alpha=0\.9 is not less than beta=0\.5"):
        configure("deep_anomaly", {"alpha": 0.9, "beta": 0.5})
