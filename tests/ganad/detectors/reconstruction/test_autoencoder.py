"""The autoencoder."""

from functools import partial
from typing import Literal

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from ganad.detectors.reconstruction.autoencoder import Autoencoder
from ganad.detectors.reconstruction.config import AutoencoderConfig
from ganad.training.trainer import Trainer
from tests.ganad.detectors.small import InMemory, digits, prepared, random_images, small

autoencoder = partial(small, "autoencoder", image_size=16, precision="float32")


@pytest.mark.parametrize(
    ("size", "channels", "encoder", "decoder"),
    [(32, 1, 1_066_752, 1_066_880), (64, 3, 3_576_576, 3_576_704)],
)
def test_parameter_counts_are_ganomaly_s(
    size: int, channels: Literal[1, 3], encoder: int, decoder: int
) -> None:
    model = Autoencoder(AutoencoderConfig(image_size=size, channels=channels))
    assert sum(p.numel() for p in model.encoder.parameters()) == encoder
    assert sum(p.numel() for p in model.decoder.parameters()) == decoder


@pytest.mark.parametrize("score", ["l1", "l2"])
def test_score_and_map_are_the_mean_error(score: str) -> None:
    model = autoencoder(score=score, channels=3)
    images = random_images(3, 3, 16)
    with torch.no_grad():
        x = prepared(images)
        error = (x - model.reconstruct(x)).abs()
    terms = {"l1": error, "l2": error.square()}
    scores = model.score(images, maps=True)
    np.testing.assert_allclose(scores.score, terms[score].mean((1, 2, 3)), rtol=1e-5)
    assert set(scores.terms) == {"l1", "l2"}
    for name, term in scores.terms.items():
        np.testing.assert_allclose(term, terms[name].mean((1, 2, 3)), rtol=1e-5)
    assert scores.maps is not None
    np.testing.assert_allclose(scores.maps, terms[score].mean(1), atol=1e-5)


def test_the_map_is_blurred_when_asked_and_the_score_is_not() -> None:
    image = random_images(1, size=16)
    plain, blurred = (autoencoder(map_blur=sigma).score(image, maps=True) for sigma in (0.0, 2.0))
    assert plain.maps is not None
    assert blurred.maps is not None
    expected = gaussian_filter(plain.maps[0], 2.0, mode="mirror", truncate=4)
    np.testing.assert_allclose(blurred.maps[0], expected, atol=1e-5)
    assert blurred.score == plain.score


def test_the_ssim_score_is_zero_for_a_perfect_reconstruction() -> None:
    model = autoencoder(score="ssim")
    model.reconstruct = lambda images: images  # type: ignore[method-assign]
    scores = model.score(random_images(2, size=16), maps=True)
    np.testing.assert_allclose(scores.score, 0, atol=1e-6)
    np.testing.assert_allclose(scores.maps, 0, atol=1e-5)  # type: ignore[arg-type]


@pytest.mark.parametrize("loss", ["l1", "l2", "ssim"])
def test_a_short_training_lowers_the_loss(loss: str) -> None:
    model = autoencoder(image_size=32, loss=loss, epochs=8, batch_size=32, learning_rate=1e-3)
    trainer = Trainer(model, InMemory(digits(128)))
    losses = [p.losses["reconstruction"] for p in trainer.run() if p.losses]
    assert losses[-1] < 0.8 * losses[0]


def test_a_training_that_learned_something_has_nothing_to_report() -> None:
    model = autoencoder(image_size=32, epochs=10, batch_size=32, learning_rate=5e-3)
    *_, last = Trainer(model, InMemory(digits(128))).run()
    assert not last.events
