import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from ganad.detectors.statistics import gmm
from ganad.detectors.statistics.gaussian import Gaussian
from ganad.detectors.statistics.gmm import Gmm, Level
from ganad.features.mixture import fit
from tests.ganad.detectors.small import BACKBONE, small


def draw(num: int, seed: int = 0) -> torch.Tensor:
    """Smooth coloured noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(num, 3, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, 32, mode="bilinear")
    return (255 * smooth).to(torch.uint8)


def test_one_component_equals_gaussian() -> None:
    images, test = draw(40), draw(20, seed=1)
    found = []
    for name, keys in (("gmm", {"max_components": 1}), ("gaussian", {})):
        detector = small(name, channels=3, backbone=BACKBONE, **keys)
        detector.finish(detector.observe(detector.begin(images), images))
        found.append(detector.score(test, maps=True))
    mixture, gaussian = found
    np.testing.assert_allclose(mixture.score, gaussian.score, rtol=1e-8)
    for level, term in gaussian.terms.items():
        np.testing.assert_allclose(mixture.terms[level], term, rtol=1e-8)
    np.testing.assert_allclose(mixture.maps, gaussian.maps, rtol=1e-3, atol=1e-3)
    assert Gmm.good_at != Gaussian.good_at


def two_kinds(num: int, seed: int) -> torch.Tensor:
    """Vectors of two kinds, and the middle between them empty."""
    rng = np.random.default_rng(seed)
    signs = rng.choice([-1, 1], (num, 1))
    return torch.from_numpy(5.0 * signs + rng.normal(size=(num, 4))).float()


def test_between_two_kinds_of_normal_vectors_is_abnormal() -> None:
    level = Level(4)
    level.fit(two_kinds(300, seed=0), most=5, seed=0)
    assert len(level.means) == 2
    between = torch.from_numpy(np.random.default_rng(2).normal(size=(100, 4))).float()
    scores = level(torch.cat([two_kinds(100, seed=1), between]))
    assert roc_auc_score(np.repeat([0, 1], 100), scores) > 0.99
    single = Level(4)
    single.fit(two_kinds(300, seed=0), most=1, seed=0)
    scores = single(torch.cat([two_kinds(100, seed=1), between]))
    assert roc_auc_score(np.repeat([0, 1], 100), scores) < 0.5


def test_scores_rank_as_the_likelihood_does_and_begin_at_zero() -> None:
    level = Level(4)
    level.fit(two_kinds(300, seed=0), most=2, seed=0)
    vectors = two_kinds(50, seed=1)
    squares = [
        ((vectors.double() - mean) @ whitening.T).square().sum(1)
        for mean, whitening in zip(level.means, level.whitening, strict=True)
    ]
    density = sum(
        share.exp() * (-square / 2).exp()
        for share, square in zip(level.log_shares, squares, strict=True)
    )
    torch.testing.assert_close(level(vectors), (-2 * density.log()).sqrt())
    assert level(level.means).max() < 1.5
    assert level(torch.full((1, 4), torch.inf)).isnan().all()


def test_facts_say_how_many_components_each_level_has() -> None:
    detector = small("gmm", channels=3)
    images = draw(30)
    facts = detector.finish(detector.observe(detector.begin(images), images))
    assert facts["levels"]["layer4"]["dimension"] == 512
    assert all(1 <= level["num_components"] <= 2 for level in facts["levels"].values())


def test_components_that_cannot_be_fitted_to_all_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A third of the vectors are one and the same: a component of theirs has no covariance."""
    spread = torch.from_numpy(np.random.default_rng(0).normal(size=(200, 4))).float()
    vectors = torch.cat([spread, torch.full((100, 4), 1e4)])
    monkeypatch.setattr(gmm, "best_number", lambda *_: 2)
    with pytest.raises(np.linalg.LinAlgError):
        fit(vectors, 2, seed=0)
    level = Level(4)
    level.fit(vectors, most=5, seed=0)
    assert len(level.means) == 1
    assert level(vectors).isfinite().all()
