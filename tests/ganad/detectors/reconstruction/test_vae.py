"""The variational autoencoder."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from ganad.detectors.base import Step
from ganad.detectors.reconstruction.config import VaeConfig
from ganad.detectors.reconstruction.vae import Vae
from ganad.training.trainer import Trainer


class Images:
    """Training images from an array."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, positions: np.ndarray) -> np.ndarray:
        return self.pixels[positions]


def small(**keys: object) -> Vae:
    values = {"image_size": 16, "channels": 1, "width": 8, "latent": 10, "precision": "float32"}
    torch.manual_seed(0)
    return Vae(VaeConfig.model_validate({**values, **keys})).eval()


def noise(num: int, channels: int = 1, size: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    shape = (num, channels, size, size)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def digits(num: int) -> np.ndarray:
    """Handwritten digits at 32 pixels."""
    eight = (load_digits().images[:num] * 255 / 16).astype(np.uint8)
    return eight.repeat(4, axis=1).repeat(4, axis=2)[:, None]


def step_at(number: int, total: int, losses: list[torch.Tensor]) -> Step:
    return Step(
        update=lambda name, loss: losses.append(loss),
        number=number,
        total=total,
        mean=lambda value: value.item(),
        reset_optimizer=lambda name: None,
        event=lambda text: None,
    )


def test_only_the_last_convolution_differs_from_ganomaly_s() -> None:
    model = Vae(VaeConfig(image_size=32, channels=1))
    assert sum(p.numel() for p in model.encoder.parameters()) == 1_066_752 + 100 * 256 * 16
    assert sum(p.numel() for p in model.decoder.parameters()) == 1_066_880


def test_the_loss_is_half_the_squared_error_summed_plus_kl() -> None:
    model = small(beta=2.0).train()
    x = noise(4).float() / 127.5 - 1
    found: list[torch.Tensor] = []
    torch.manual_seed(3)
    reported = model.training_step(x, step_at(50, 100, found))
    torch.manual_seed(3)
    mu, log_variance = model.encode(x)
    x_hat = model.decoder(mu + torch.exp(log_variance / 2) * torch.randn_like(mu))
    half_sse = 0.5 * (x - x_hat).square().sum((1, 2, 3)).mean()
    kl = (log_variance.exp() + mu.square() - 1 - log_variance).sum((1, 2, 3)).mean() / 2
    assert reported["reconstruction"].item() == pytest.approx(half_sse.item(), rel=1e-5)
    assert reported["kl"].item() == pytest.approx(kl.item(), rel=1e-4)
    assert found[0].item() == pytest.approx((half_sse + 2 * kl).item(), rel=1e-5)


def test_kl_is_warmed_up_over_a_tenth_of_the_steps() -> None:
    model = small().train()
    x = noise(4).float() / 127.5 - 1
    for number, weight in ((0, 0.0), (5, 0.5), (10, 1.0), (99, 1.0)):
        found: list[torch.Tensor] = []
        reported = model.training_step(x, step_at(number, 100, found))
        expected = reported["reconstruction"] + weight * reported["kl"]
        assert found[0].item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_learning_rate_falls_as_a_half_cosine() -> None:
    model = small(epochs=4, batch_size=8, learning_rate=1e-3)
    trainer = Trainer(model, Images(noise(16).numpy()))
    rates = [trainer.optimizers["vae"].param_groups[0]["lr"] for _ in trainer.run()]
    expected = [0.5e-3 * (1 + math.cos(math.pi * number / 8)) for number in range(8)]
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize("score", ["recon", "elbo"])
def test_scores_are_taken_at_the_mean_of_the_code(score: str) -> None:
    model = small(score=score, channels=3)
    images = noise(3, channels=3)
    x = images.float() / 127.5 - 1
    with torch.no_grad():
        mu, log_variance = model.encode(x)
        squared = (x - model.decoder(mu)).square()
        kl = (log_variance.exp() + mu.square() - 1 - log_variance).sum((1, 2, 3)) / 2
    recon = squared.sum((1, 2, 3)) / 2
    scores = model.score(images, maps=True)
    np.testing.assert_allclose(scores.terms["recon"], recon, rtol=1e-5)
    np.testing.assert_allclose(scores.terms["kl"], kl, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(scores.score, recon + kl if score == "elbo" else recon, rtol=1e-5)
    np.testing.assert_allclose(scores.maps, squared.mean(1), atol=1e-5)  # type: ignore[arg-type]


def test_reconstruction_probability_is_the_mean_over_draws() -> None:
    model = small(score="recon_prob", num_draws=3)
    images, ids = noise(2), ["a", "b"]
    x = images.float() / 127.5 - 1
    with torch.no_grad():
        mu, log_variance = model.encode(x)
        draws = [
            (x - model.decoder(mu + torch.exp(log_variance / 2) * epsilon)).square()
            for epsilon in model._noise(ids)
        ]
    expected = torch.stack(draws).sum((2, 3, 4)).mean(0) / 2
    scores = model.score(images, ids, maps=True)
    np.testing.assert_allclose(scores.score, expected, rtol=1e-5)
    mean_map = torch.stack(draws).mean((0, 2))
    np.testing.assert_allclose(scores.maps, mean_map, atol=1e-5)  # type: ignore[arg-type]


def test_noise_is_standard_normal_and_a_function_of_seed_and_id_alone() -> None:
    model = small(num_draws=50, latent=20)
    drawn = model._noise(["a", "b", "a"])
    assert drawn.shape == (50, 3, 20, 1, 1)
    assert torch.equal(drawn[:, 0], drawn[:, 2])
    assert not torch.equal(drawn[:, 0], drawn[:, 1])
    assert drawn.mean().item() == pytest.approx(0, abs=0.1)
    assert drawn.std().item() == pytest.approx(1, abs=0.1)
    assert not torch.equal(drawn, small(num_draws=50, latent=20, seed=1)._noise(["a", "b", "a"]))


@pytest.mark.parametrize("score", ["recon", "elbo", "recon_prob"])
def test_a_score_is_independent_of_the_batch(score: str) -> None:
    model = small(score=score)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images, ids = noise(64), [f"id{i}" for i in range(64)]
    together = model.score(images, ids).score
    for size in (1, 7):
        parts = [
            model.score(images[i : i + size], ids[i : i + size]).score for i in range(0, 21, size)
        ]
        np.testing.assert_allclose(np.concatenate(parts), together[:21], rtol=1e-5)
    order = torch.randperm(64)
    shuffled = model.score(images[order], [ids[i] for i in order]).score
    np.testing.assert_allclose(shuffled, together[order], rtol=1e-5)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_short_training_lowers_the_loss() -> None:
    model = small(image_size=32, epochs=10, batch_size=32, warm_up=0.0)
    losses = [p.losses["elbo"] for p in Trainer(model, Images(digits(128))).run() if p.losses]
    assert losses[-1] < 0.7 * losses[0]


def test_plain_images_have_finite_scores() -> None:
    levels = torch.tensor([0, 128, 255], dtype=torch.uint8).view(3, 1, 1, 1)
    images = levels.expand(3, 1, 16, 16).contiguous()
    for score in ("elbo", "recon_prob"):
        assert np.isfinite(small(score=score).score(images).score).all()


def test_a_code_that_carries_nothing_is_reported() -> None:
    model = small(epochs=2, batch_size=8, learning_rate=1e-12)
    with torch.no_grad():
        model.encoder[-1].weight.zero_()  # type: ignore[operator]
    last = list(Trainer(model, Images(noise(16).numpy())).run())[-1]
    assert "carries only" in last.events[0]
