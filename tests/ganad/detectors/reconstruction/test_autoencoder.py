"""The autoencoder."""

from typing import Literal

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_digits

from ganad.detectors.reconstruction.autoencoder import Autoencoder
from ganad.detectors.reconstruction.config import AutoencoderConfig
from ganad.errors import ConfigError, TrainingError
from ganad.training.trainer import Trainer


class Images:
    """Training images from an array."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, positions: np.ndarray) -> np.ndarray:
        return self.pixels[positions]


def small(**keys: object) -> Autoencoder:
    values = {"image_size": 16, "channels": 1, "width": 8, "latent": 10, "precision": "float32"}
    torch.manual_seed(0)
    return Autoencoder(AutoencoderConfig.model_validate({**values, **keys})).eval()


def noise(num: int, channels: int = 1, size: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    shape = (num, channels, size, size)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def digits(num: int) -> np.ndarray:
    """Handwritten digits at 32 pixels."""
    eight = (load_digits().images[:num] * 255 / 16).astype(np.uint8)
    return eight.repeat(4, axis=1).repeat(4, axis=2)[:, None]


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
    model = small(score=score, channels=3)
    images = noise(3, channels=3)
    with torch.no_grad():
        x = images.float() / 127.5 - 1
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
    plain, blurred = (small(map_blur=sigma).score(noise(1), maps=True) for sigma in (0.0, 2.0))
    assert plain.maps is not None
    assert blurred.maps is not None
    expected = gaussian_filter(plain.maps[0], 2.0, mode="mirror", truncate=4)
    np.testing.assert_allclose(blurred.maps[0], expected, atol=1e-5)
    assert blurred.score == plain.score


def test_the_ssim_score_is_zero_for_a_perfect_reconstruction() -> None:
    model = small(score="ssim")
    model.reconstruct = lambda images: images  # type: ignore[method-assign]
    scores = model.score(noise(2), maps=True)
    np.testing.assert_allclose(scores.score, 0, atol=1e-6)
    np.testing.assert_allclose(scores.maps, 0, atol=1e-5)  # type: ignore[arg-type]


@pytest.mark.parametrize("loss", ["l1", "l2", "ssim"])
def test_a_short_training_lowers_the_loss(loss: str) -> None:
    model = small(image_size=32, loss=loss, epochs=8, batch_size=32, learning_rate=1e-3)
    trainer = Trainer(model, Images(digits(128)))
    losses = [p.losses["reconstruction"] for p in trainer.run() if p.losses]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("score", ["l1", "l2", "ssim"])
def test_a_score_is_independent_of_the_batch(score: str) -> None:
    model = small(score=score)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = noise(64)
    together = model.score(images).score
    for size in (1, 7):
        parts = [model.score(images[i : i + size]).score for i in range(0, 21, size)]
        np.testing.assert_allclose(np.concatenate(parts), together[:21], rtol=1e-5)
    order = torch.randperm(64)
    np.testing.assert_allclose(model.score(images[order]).score, together[order], rtol=1e-5)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("score", ["l2", "ssim"])
def test_plain_images_have_finite_scores(score: str) -> None:
    levels = torch.tensor([0, 128, 255], dtype=torch.uint8).view(3, 1, 1, 1)
    scores = small(score=score).score(levels.expand(3, 1, 16, 16).contiguous(), maps=True)
    assert np.isfinite(scores.score).all()
    assert np.isfinite(scores.maps).all()  # type: ignore[arg-type]


def test_an_autoencoder_that_learned_nothing_is_reported() -> None:
    model = small(epochs=1, batch_size=8, learning_rate=1e-12)
    last = list(Trainer(model, Images(noise(16).numpy())).run())[-1]
    assert "further from the images than their mean image" in last.events[0]
    trained = small(image_size=32, epochs=10, batch_size=32, learning_rate=5e-3)
    last = list(Trainer(trained, Images(digits(128))).run())[-1]
    assert not last.events


def test_a_loss_that_is_no_number_stops_the_training() -> None:
    model = small(epochs=30, batch_size=8, learning_rate=1e30)
    with pytest.raises(TrainingError, match=r"^autoencoder: the reconstruction loss became nan"):
        list(Trainer(model, Images(noise(16).numpy())).run())


def test_sizes_that_do_not_halve_to_four_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^image_size=48 "):
        AutoencoderConfig(image_size=48)
