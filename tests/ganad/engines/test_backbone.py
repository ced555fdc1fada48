"""The frozen network of a detector, run by an engine for fits and kept maps."""

import numpy as np
import pytest
import torch

from ganad.engines.backbone import BATCH, attach_backbone, frozen_network
from ganad.engines.gate import FEATURES, feature_agreement
from ganad.engines.known import available
from ganad.engines.trial import try_backbone
from ganad.errors import ConfigError
from tests.ganad.detectors.small import MAPS, random_images, small
from tests.ganad.engines.needs import needs_openvino

F32 = {"precision": "float32"}


def made(kind):
    if kind == "ganomaly":
        return small("ganomaly", **MAPS, **F32)
    return small(kind, channels=3, **F32)


def features(detector, images):
    with torch.no_grad():
        found = frozen_network(detector)(detector.prepare(images))
    return [found] if isinstance(found, torch.Tensor) else list(found.values())


def agree(detector, engine):
    images = random_images(2 * BATCH + 3, 3)
    eager = features(detector, images)
    attach_backbone(detector, engine)
    found = features(detector, images)
    assert [one.shape for one in found] == [one.shape for one in eager]
    agreement = feature_agreement(eager, found)
    assert agreement.passed, agreement
    assert agreement.difference > 0, "the engine did not run"
    # The features of an image depend on it alone.
    assert all(
        torch.equal(one[5:7], other)
        for one, other in zip(found, features(detector, images[5:7]), strict=True)
    )
    attach_backbone(detector, "eager")
    assert all(map(torch.equal, features(detector, images), eager))


@needs_openvino
@pytest.mark.parametrize("kind", ["gaussian", "padim", "ganomaly"])
def test_openvino_gives_the_features_of_the_eager_network(kind, cache):
    agree(made(kind), "openvino")
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 1
    agree(made(kind), "openvino")  # the same network is not compiled again
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 1


@pytest.mark.slow
def test_inductor_gives_the_features_of_the_eager_network():
    if "inductor" not in available():
        pytest.skip("no C++ compiler")
    agree(made("padim"), "inductor")


@needs_openvino
def test_a_fit_by_an_engine_is_the_eager_fit_but_for_rounding():
    images, test = random_images(60, 3), random_images(20, 3)

    def scores(engine):
        detector = made("gaussian")
        attach_backbone(detector, engine)
        detector.finish(detector.observe(detector.begin(images), images))
        attach_backbone(detector, "eager")
        return detector.score(test).score

    eager, fast = scores("eager"), scores("openvino")
    assert not np.array_equal(eager, fast)
    assert np.allclose(eager, fast, rtol=1e-3)


def test_a_detector_without_a_frozen_network_is_left_as_it_is():
    detector = small("ganomaly")
    assert frozen_network(detector) is None
    attach_backbone(detector, "eager")


def test_an_unknown_engine_is_named():
    with pytest.raises(ConfigError, match="--engine turbo: use one of"):
        attach_backbone(made("gaussian"), "turbo")


@needs_openvino
def test_engines_of_the_network_are_tried_beside_eager():
    detector = made("padim")
    trials = try_backbone(detector, random_images(20, 3), ["openvino"])
    assert [one.engine for one in trials] == ["eager", "openvino"]
    assert trials[1].passed
    assert trials[1].agreement.difference <= FEATURES
    assert frozen_network(detector).engine is None
    # Few images are not worth a compilation.
    assert len(try_backbone(detector, random_images(20, 3), ["openvino"], total=20)) == 1


def test_features_that_differ_by_more_than_rounding_do_not_pass():
    generator = torch.Generator().manual_seed(0)
    eager = torch.randn(32, 8, 5, 5, generator=generator)
    assert feature_agreement([eager], [eager]).difference == 0
    other = eager.clone()
    other[:, 3] += 0.01
    found = feature_agreement([eager], [other])
    assert found.difference == pytest.approx(0.01, rel=0.1)
    assert not found.passed


def test_channels_that_do_not_vary_are_rounding():
    generator = torch.Generator().manual_seed(0)
    eager = torch.randn(32, 8, generator=generator)
    eager[:, 2] = 1e-9 * eager[:, 2]
    other = eager.clone()
    other[:, 2] += 1e-9
    assert feature_agreement([eager], [other]).passed


def test_features_that_are_not_finite_do_not_pass():
    eager = torch.zeros(4, 2)
    found = feature_agreement([eager], [torch.full((4, 2), torch.nan)])
    assert not found.passed
    assert found.facts()["difference"] is None
