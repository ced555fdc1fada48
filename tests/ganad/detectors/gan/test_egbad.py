"""EGBAD against what is known of the authors' code."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ganad.detectors.gan.config import EgbadConfig
from ganad.detectors.gan.egbad import Egbad
from ganad.training.trainer import Trainer
from tests.ganad.detectors.small import (
    InMemory,
    digits,
    prepared,
    random_images,
    small,
    step_with,
    train_against_the_rest,
)

egbad = partial(small, "egbad", image_size=16, precision="float32", epochs=2)


def test_parameter_counts_at_the_size_of_the_authors() -> None:
    with torch.device("meta"):
        model = Egbad(EgbadConfig(image_size=28, channels=1))
    counts = [
        sum(parameter.numel() for parameter in network.parameters())
        for network in (model.encoder, model.generator, model.discriminator)
    ]
    assert counts == [1_347_656, 6_781_505, 3_907_329]


def by_hand(model: Any, images: torch.Tensor) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        x = prepared(images)
        z = model.average_encoder.network(x)
        x_hat = model.average_generator.network(z)
        discriminator = model.average_discriminator.network
        real_logit, real = discriminator(x, z)
        fake_logit, fake = discriminator(x_hat, z)
    return {
        "reconstruction": (x - x_hat).abs().sum((1, 2, 3)),
        "fm": (real - fake).abs().sum(1),
        "cross_entropy": -torch.sigmoid(real_logit).log(),
        "cross_entropy_code": -torch.sigmoid(fake_logit).log(),
        "map": (x - x_hat).abs().mean(1),
    }


@pytest.mark.parametrize("score", ["fm", "cross_entropy", "cross_entropy_code"])
def test_score_weighs_reconstruction_and_discriminator(score: str) -> None:
    model = egbad(score=score, channels=3, batch_size=8)
    images = random_images(16, 3, 16)
    list(Trainer(model, InMemory(images)).run())
    expected = by_hand(model, images)
    scores = model.score(images, maps=True)
    np.testing.assert_allclose(
        scores.terms["reconstruction"], expected["reconstruction"], rtol=1e-5
    )
    np.testing.assert_allclose(scores.terms["discriminator"], expected[score], rtol=1e-4)
    total = 0.9 * expected["reconstruction"] + 0.1 * expected[score]
    np.testing.assert_allclose(scores.score, total, rtol=1e-5)
    np.testing.assert_allclose(scores.maps, expected["map"], atol=1e-5)  # type: ignore[arg-type]


def test_generator_and_encoder_answer_to_the_updated_discriminator() -> None:
    model = egbad().train()
    losses = {}

    def update(name: str, loss: torch.Tensor) -> None:
        losses[name] = loss.item()
        if name == "discriminator":  # as if it had learned to call every pair real
            nn.init.zeros_(model.discriminator.classifier.weight)
            nn.init.constant_(model.discriminator.classifier.bias, 5.0)

    model.training_step(prepared(random_images(8, size=16)), step_with(update))
    assert losses["generator"] == pytest.approx(np.log1p(np.exp(-5.0)), rel=1e-5)
    assert losses["encoder"] == pytest.approx(np.log1p(np.exp(5.0)), rel=1e-5)


def test_a_short_training_brings_reconstructions_nearer() -> None:
    pixels = digits(128)
    keys = {"image_size": 32, "width": 4, "features": 64, "latent": 16}
    model = egbad(**keys, epochs=30, batch_size=32, learning_rate=4e-3)
    before = model.score(torch.from_numpy(pixels[:64])).terms["reconstruction"].mean()
    list(Trainer(model, InMemory(pixels)).run())
    after = model.score(torch.from_numpy(pixels[:64])).terms["reconstruction"].mean()
    assert after < 0.8 * before


def test_the_adversarial_terms_reach_generator_and_encoder() -> None:
    model = egbad().train()
    seen = {}

    def update(name: str, loss: torch.Tensor) -> None:
        network = getattr(model, name)
        seen[name] = torch.autograd.grad(loss, [*network.parameters()], retain_graph=True)

    model.training_step(prepared(random_images(8, size=16)), step_with(update))
    # Biases before a batch norm have no gradient by nature.
    for name in ("generator", "encoder", "discriminator"):
        kernels = [gradient for gradient in seen[name] if gradient.ndim > 1]
        assert all(gradient.abs().sum() > 0 for gradient in kernels), name


@pytest.mark.parametrize("player", ["discriminator", "generator", "encoder"])
def test_a_player_s_steps_lower_its_own_loss(player: str) -> None:
    x = prepared(random_images(32, size=16))
    found = train_against_the_rest(egbad(), player, x, 30, rate=1e-3)
    assert np.mean(found[-5:]) < np.mean(found[:5])
