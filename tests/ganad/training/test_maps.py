"""Training on dense maps in one process."""

from typing import Any

import numpy as np
import pytest
import torch

import ganad
from ganad.errors import TrainingError
from ganad.features.maps import ChannelMoments
from ganad.training.maps import fit_maps, fit_scale, image_moments, keep_maps, moments_of
from ganad.training.trainer import Trainer
from tests.ganad.detectors.small import MAPS, SMALL, InMemory, random_images, small


def test_moments_by_image_make_the_moments_of_all() -> None:
    model = small("ganomaly", **MAPS)
    images = random_images(13, 3)
    raw = model.represent(images)
    expected = ChannelMoments.of(raw)
    for piece in (1, 5, 13):
        pieces = [
            image_moments(raw[k : k + piece], len(raw[k : k + piece])) for k in range(0, 13, piece)
        ]
        fit_maps(model, pieces)
        np.testing.assert_allclose(model.maps.mean, expected.mean, rtol=1e-6)
        np.testing.assert_allclose(model.maps.scale, expected.std, rtol=1e-6)
        found = model.maps.mean.clone()
        fit_maps(model, moments_of(model, InMemory(images), np.arange(13)))
        assert torch.equal(model.maps.mean, found)  # whatever the pieces, to the last bit


def test_maps_that_are_kept_train_as_maps_made_in_each_step_do() -> None:
    images = InMemory(random_images(16, 3))
    ends = []
    for kept in (True, False):
        model = small("ganomaly", **MAPS, precision="float32", epochs=2)
        seen = keep_maps(model, images) if kept else images
        list(Trainer(model, seen).run())
        ends.append(model.state_dict())
    for key, value in ends[0].items():
        assert torch.equal(value, ends[1][key]), key


@pytest.mark.parametrize(
    "keys", [{"augment": {"brightness": 0.1}}, {"image_size": 48, "patch": {"size": 32}}]
)
def test_maps_that_differ_from_epoch_to_epoch_are_not_kept(keys: dict[str, Any]) -> None:
    model = small("autoencoder", **MAPS, epochs=1, **keys)
    images = InMemory(random_images(16, 3, model.config.image_size))
    assert keep_maps(model, images) is images
    *_, last = Trainer(model, images).run()
    assert np.isfinite(last.losses["reconstruction"])


def test_terms_are_scaled_by_normal_images_that_did_not_train() -> None:
    model = small("ganomaly", **MAPS, terms=["latent", "cosine"])
    images = random_images(12, 3)
    before = model.score(images[4:]).terms
    fit_scale(model, InMemory(images), np.arange(4, 12))
    after = model.score(images[4:])
    np.testing.assert_array_equal(after.terms["latent"], before["latent"])
    expected = sum((before[k] - before[k].mean()) / before[k].std() for k in ("latent", "cosine"))
    np.testing.assert_allclose(after.score, expected, atol=1e-9)


def test_features_that_are_not_finite_stop_the_training() -> None:
    model = small("ganomaly", **MAPS)
    with pytest.raises(TrainingError, match="^ganomaly: the network gives training images"):
        fit_maps(model, [np.full((2, 2, 16), np.nan)])
    with pytest.raises(TrainingError, match="^no training images"):
        fit_maps(model, [])


def test_fit_trains_on_maps_and_gives_scores_with_p_values() -> None:
    keys = {**SMALL["ganomaly"], **MAPS, "image_size": 32, "epochs": 2, "batch_size": 8}
    images = random_images(60, 3).numpy()
    model = ganad.fit("ganomaly", images, **keys, terms=["latent", "residual"])
    scores = model.score(images[:5], maps=True)
    assert np.isfinite(scores.score).all()
    assert ((scores.p_value > 0) & (scores.p_value <= 1)).all()
    assert scores.maps[0] is not None
    assert scores.maps[0].shape == (32, 32)
    assert "validation_score" in model.training["history"][0]
    assert not torch.equal(model.detector.scale.spread, torch.ones(4).double())  # type: ignore[union-attr]
