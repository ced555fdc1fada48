from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from sklearn.svm import OneClassSVM

from ganad.detectors import configure, create
from ganad.detectors.statistics.ocsvm import Ocsvm
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
def test_terms_are_scikit_learns_decision_function_negated(nu: float) -> None:
    train, test = draw(80), draw(20, seed=1)
    detector = fitted(train, nu=nu)
    statistics = detector.observe(detector.begin(train), train)
    scores = detector.score(test)
    unseen = detector.features(test)
    assert list(scores.terms) == ["stem", "layer1", "layer2", "layer3", "layer4"]
    for level, vectors in statistics.vectors.items():
        svm = OneClassSVM(kernel="rbf", gamma="scale", nu=nu).fit(vectors.astype(np.float64))
        decision = svm.decision_function(unseen[level].double().numpy())
        np.testing.assert_allclose(scores.terms[level], -decision, rtol=1e-6, atol=1e-6)
        assert np.ptp(decision) > 1e-3
    mean = np.mean(list(scores.terms.values()), axis=0)
    np.testing.assert_allclose(scores.score, mean, rtol=1e-12)


def test_other_images_score_higher(detector: Ocsvm) -> None:
    other = draw(64, seed=4)
    other[:, :, 8:24, 8:24] = 255 - other[:, :, 8:24, 8:24] // 4
    scores = detector.score(torch.cat([draw(64, seed=3), other])).score
    assert roc_auc_score(np.repeat([0, 1], 64), scores) > 0.8


def test_nu_bounds_the_share_of_training_images_outside() -> None:
    terms = fitted(draw(80), nu=0.1).score(draw(80)).terms
    for level, term in terms.items():
        assert 0 < (term > 1e-3).mean() <= 0.1, level


def test_facts_name_the_fit(detector: Ocsvm) -> None:
    facts = detector.facts()
    assert (facts["num_images"], facts["num_kept"]) == (80, 80)
    level = facts["levels"]["layer4"]
    assert level["dimension"] == 512
    assert 40 <= level["num_support"] < 80
    assert level["gamma"] > 0


def test_far_from_everything_the_score_levels_off(detector: Ocsvm) -> None:
    level = detector.levels["stem"]
    far = level(torch.full((1, 64), 1e6))
    torch.testing.assert_close(far, -level.intercept[None])
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
