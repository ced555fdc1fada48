"""Compiled detectors give the scores of the eager pass, and are compiled once on a machine."""

import numpy as np
import pytest
import torch

from ganad.engines import inductor, openvino
from ganad.engines.compiled import attach
from ganad.engines.forward import layout_of
from ganad.engines.known import available, check
from ganad.errors import ConfigError, EngineError
from tests.ganad.detectors.small import random_images, small
from tests.ganad.engines.needs import needs_openvino

F32 = {"precision": "float32"}


@pytest.fixture(scope="module")
def gaussian():
    detector = small("gaussian", **F32)
    images = random_images(60)
    detector.finish(detector.observe(detector.begin(images), images))
    return detector


@pytest.fixture(params=["ganomaly", "gaussian"])
def detector(request):
    if request.param == "gaussian":
        return request.getfixturevalue("gaussian")
    return small(request.param, **F32)


@needs_openvino
def test_openvino_gives_the_scores_and_terms_of_the_eager_pass(detector, cache):
    images = random_images(40)
    eager = detector.score(images)
    attach(detector, "openvino")
    scores = detector.score(images)
    assert np.allclose(scores.score, eager.score, rtol=1e-4, atol=1e-6)
    assert list(scores.terms) == list(eager.terms)
    assert scores.score.dtype == np.float64
    # A score depends on the image alone: another batch gives the same bits.
    assert np.array_equal(detector.score(images[5:9]).score, scores.score[5:9])
    attach(detector, "eager")
    assert np.array_equal(detector.score(images).score, eager.score)
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 1


@needs_openvino
def test_a_detector_is_compiled_once_on_a_machine(monkeypatch):
    builds = []
    build = openvino.build

    def counted(*arguments):
        builds.append(1)
        build(*arguments)

    monkeypatch.setattr(openvino, "build", counted)
    attach(small("ganomaly", **F32), "openvino")
    attach(small("ganomaly", **F32), "openvino")
    assert len(builds) == 1
    attach(small("ganomaly", seed=1, **F32), "openvino")
    assert len(builds) == 2


@needs_openvino
def test_a_compilation_that_fails_leaves_nothing_and_names_the_remedy(monkeypatch, cache):
    def failing(*arguments):
        raise RuntimeError("no such operation\nmore")

    monkeypatch.setattr(openvino, "build", failing)
    detector = small("ganomaly", **F32)
    with pytest.raises(EngineError, match=r"no such operation\): use --engine eager"):
        attach(detector, "openvino")
    assert detector.engine is None
    assert [path for path in cache.iterdir() if path.is_dir()] == []


def test_a_score_that_needs_gradients_is_refused():
    with pytest.raises(EngineError, match="follows gradients"):
        layout_of(small("anogan"), maps=False)


def test_a_score_that_draws_noise_for_each_image_is_refused():
    detector = small("ganomaly")
    score_batch = detector.score_batch

    def noisy(images, ids, maps):
        result = score_batch(images, ids, maps)
        result.score = result.score + torch.tensor([float(len(one)) for one in ids])
        return result

    detector.score_batch = lambda images, ids, maps: noisy(
        images, [one * (2 if one.startswith("b") else 1) for one in ids], maps
    )
    with pytest.raises(EngineError, match="draws noise"):
        layout_of(detector, maps=False)


def test_an_unknown_engine_is_named():
    with pytest.raises(ConfigError, match="--engine turbo: use one of auto, eager"):
        check("turbo")


def test_an_engine_that_is_not_there_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(inductor.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="--engine inductor is not on this machine: install"):
        check("inductor")
    assert "inductor" not in available()


@pytest.mark.slow
def test_inductor_gives_the_scores_of_the_eager_pass():
    detector = small("ganomaly", **F32)
    images = random_images(40)
    eager = detector.score(images)
    if "inductor" not in available():
        pytest.skip("no C++ compiler")
    attach(detector, "inductor")
    assert np.allclose(detector.score(images).score, eager.score, rtol=1e-4, atol=1e-6)
