"""The variational autoencoder."""

import math
from functools import partial

import numpy as np
import pytest
import torch

from ganad.detectors.reconstruction.config import VaeConfig
from ganad.detectors.reconstruction.vae import Vae
from ganad.training.trainer import Trainer
from tests.ganad.detectors.small import InMemory, digits, prepared, random_images, small, step_with

vae = partial(small, "vae", image_size=16, precision="float32")


def test_only_the_last_convolution_differs_from_ganomaly_s() -> None:
    model = Vae(VaeConfig(image_size=32, channels=1))
    assert sum(p.numel() for p in model.encoder.parameters()) == 1_066_752 + 100 * 256 * 16
    assert sum(p.numel() for p in model.decoder.parameters()) == 1_066_880


def test_the_loss_is_half_the_squared_error_summed_plus_kl() -> None:
    model = vae(beta=2.0).train()
    x = prepared(random_images(4, size=16))
    found: list[torch.Tensor] = []
    torch.manual_seed(3)
    step = step_with(lambda name, loss: found.append(loss), number=50)
    reported = model.training_step(x, step)
    torch.manual_seed(3)
    mu, log_variance = model.encode(x)
    x_hat = model.decoder(mu + torch.exp(log_variance / 2) * torch.randn_like(mu))
    half_sse = 0.5 * (x - x_hat).square().sum((1, 2, 3)).mean()
    kl = (log_variance.exp() + mu.square() - 1 - log_variance).sum((1, 2, 3)).mean() / 2
    assert reported["reconstruction"].item() == pytest.approx(half_sse.item(), rel=1e-5)
    assert reported["kl"].item() == pytest.approx(kl.item(), rel=1e-4)
    assert found[0].item() == pytest.approx((half_sse + 2 * kl).item(), rel=1e-5)


def test_kl_is_warmed_up_over_a_tenth_of_the_steps() -> None:
    model = vae().train()
    x = prepared(random_images(4, size=16))
    for number, weight in ((0, 0.0), (5, 0.5), (10, 1.0), (99, 1.0)):
        found: dict[str, torch.Tensor] = {}
        reported = model.training_step(x, step_with(found.__setitem__, number=number))
        expected = reported["reconstruction"] + weight * reported["kl"]
        assert found["vae"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_learning_rate_falls_as_a_half_cosine() -> None:
    model = vae(epochs=4, batch_size=8, learning_rate=1e-3)
    trainer = Trainer(model, InMemory(random_images(16, size=16)))
    rates = [trainer.optimizers["vae"].param_groups[0]["lr"] for _ in trainer.run()]
    expected = [0.5e-3 * (1 + math.cos(math.pi * number / 8)) for number in range(8)]
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize("score", ["recon", "elbo"])
def test_scores_are_taken_at_the_mean_of_the_code(score: str) -> None:
    model = vae(score=score, channels=3)
    images = random_images(3, 3, 16)
    x = prepared(images)
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
    model = vae(score="recon_prob", num_draws=3)
    images, ids = random_images(2, size=16), ["a", "b"]
    x = prepared(images)
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
    model = vae(num_draws=50, latent=20)
    drawn = model._noise(["a", "b", "a"])
    assert drawn.shape == (50, 3, 20, 1, 1)
    assert torch.equal(drawn[:, 0], drawn[:, 2])
    assert not torch.equal(drawn[:, 0], drawn[:, 1])
    assert drawn.mean().item() == pytest.approx(0, abs=0.1)
    assert drawn.std().item() == pytest.approx(1, abs=0.1)
    assert not torch.equal(drawn, vae(num_draws=50, latent=20, seed=1)._noise(["a", "b", "a"]))


def test_a_short_training_lowers_the_loss() -> None:
    model = vae(image_size=32, epochs=10, batch_size=32, warm_up=0.0)
    losses = [p.losses["elbo"] for p in Trainer(model, InMemory(digits(128))).run() if p.losses]
    assert losses[-1] < 0.7 * losses[0]


def test_a_code_that_carries_nothing_is_reported() -> None:
    model = vae(epochs=2, batch_size=8, learning_rate=1e-12)
    with torch.no_grad():
        model.encoder[-1].weight.zero_()  # type: ignore[operator]
    last = list(Trainer(model, InMemory(random_images(16, size=16))).run())[-1]
    assert "carries only" in last.events[0]
