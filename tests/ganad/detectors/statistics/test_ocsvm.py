from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score
from sklearn.svm import OneClassSVM

from ganad.detectors import configure, create
from ganad.detectors.statistics.ocsvm import Level, Ocsvm
from ganad.errors import ConfigError

SIZE = 32


def draw(num: int, seed: int = 0) -> torch.Tensor:
    """Smooth coloured noise: images that differ from one another as a whole."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(num, 3, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, SIZE, mode="bilinear")
    fine = torch.rand(num, 3, SIZE, SIZE, generator=generator)
    return (255 * (0.8 * smooth + 0.2 * fine)).to(torch.uint8)


def fitted(images: torch.Tensor, **values: Any) -> Ocsvm:
    backbone = {"name": "resnet18", "weights": "random"}
    config = configure("ocsvm", {"image_size": SIZE, "backbone": backbone, **values})
    detector = create("ocsvm", config)
    assert isinstance(detector, Ocsvm)
    detector.finish(detector.observe(detector.begin(images), images))
    return detector


@pytest.fixture(scope="module")
def detector() -> Ocsvm:
    return fitted(draw(80))


@pytest.mark.parametrize("nu", [0.5, 0.1])
def test_terms_rank_and_decide_as_scikit_learns_decision_function(nu: float) -> None:
    train, test = draw(80), draw(20, seed=1)
    detector = fitted(train, nu=nu)
    statistics = detector.observe(detector.begin(train), train)
    scores = detector.score(test)
    unseen = detector.features(test)
    assert list(scores.terms) == ["stem", "layer1", "layer2", "layer3", "layer4"]
    for level, vectors in statistics.vectors.items():
        known = LedoitWolf().fit(vectors.astype(np.float64))
        whiten = np.linalg.inv(np.linalg.cholesky(known.covariance_)).T
        whitened = (vectors - known.location_) @ whiten
        gamma = 1 / np.median(pdist(whitened, "sqeuclidean"))
        svm = OneClassSVM(kernel="rbf", gamma=gamma, nu=nu).fit(whitened)
        seen = (unseen[level].double().numpy() - known.location_) @ whiten
        total = svm.dual_coef_.sum()
        s = (svm.decision_function(seen) + svm.offset_) / total
        outside, boundary = (
            np.sqrt(-np.log(s) / gamma),
            np.sqrt(-np.log(svm.offset_ / total) / gamma),
        )
        np.testing.assert_allclose(scores.terms[level], (outside - boundary).ravel(), atol=1e-3)
        clear = np.abs(svm.decision_function(seen)) > 1e-4
        assert clear.any()
        found = scores.terms[level][clear] > 0
        np.testing.assert_array_equal(found, svm.decision_function(seen)[clear] < 0)
    total = np.sum(list(scores.terms.values()), axis=0)
    np.testing.assert_allclose(scores.score, total, rtol=1e-12)


def test_the_size_of_a_feature_does_not_count() -> None:
    """Features as they are let a few large ones make all distances."""
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(200, 6))).float()
    scales = torch.tensor([20, 1, 1, 1, 1, 1])
    level, scaled = Level(6), Level(6)
    level.fit(x, 0.5)
    scaled.fit(x * scales, 0.5)
    test = torch.from_numpy(np.random.default_rng(1).normal(size=(50, 6))).float()
    test[:25, 4] += 6
    for one, vectors in ((level, test), (scaled, test * scales)):
        assert roc_auc_score(np.repeat([1, 0], 25), one(vectors)) > 0.95


def test_other_images_score_higher(detector: Ocsvm) -> None:
    other = draw(64, seed=4)
    other[:, :, 8:24, 8:24] = 255 - other[:, :, 8:24, 8:24] // 4
    scores = detector.score(torch.cat([draw(64, seed=3), other])).score
    assert roc_auc_score(np.repeat([0, 1], 64), scores) > 0.8


def test_nu_bounds_the_share_of_training_images_outside_and_on_the_boundary() -> None:
    terms = fitted(draw(80), nu=0.1).score(draw(80)).terms
    for level, term in terms.items():
        assert (term > 1e-3).mean() <= 0.1, level
        assert (term > -1e-3).mean() >= 0.1, level


def test_facts_name_the_fit(detector: Ocsvm) -> None:
    facts = detector.facts()
    assert (facts["num_images"], facts["num_kept"]) == (80, 80)
    level = facts["levels"]["layer4"]
    assert level["dimension"] == 512
    assert 40 <= level["num_support"] < 80
    assert level["gamma"] > 0


def test_far_from_everything_the_score_still_grows(detector: Ocsvm) -> None:
    level = detector.levels["stem"]
    near, far = level(torch.full((1, 64), 1e3)), level(torch.full((1, 64), 2e3))
    assert far.isfinite().all()
    torch.testing.assert_close(far / near, torch.full_like(far, 2), rtol=0.05, atol=0)
    assert level(torch.full((1, 64), torch.inf)).isnan().all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"nu": 0}, "nu=0 cannot be used for ocsvm"),
        ({"nu": 1.5}, "nu=1.5 cannot be used for ocsvm"),
        ({"max_images": 1}, "max_images=1 cannot be used for ocsvm"),
        ({"gamma": "auto"}, "gamma is no key of ocsvm"),
    ],
)
def test_wrong_keys_are_told_in_one_sentence(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        configure("ocsvm", values)
    assert str(error.value).startswith(message)
