"""ALAD against what is known of the authors' code."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from tests.ganad.detectors.small import (
    digits,
    losses_of,
    prepared,
    random_images,
    small,
    step_with,
    train_against_the_rest,
)

alad = partial(small, "alad", image_size=16, latent=6, precision="float32", epochs=2)


DISCRIMINATORS = ("discriminator_xz", "discriminator_xx", "discriminator_zz")


@pytest.mark.parametrize("score", ["fm", "cross_entropy", "l1", "l2"])
@pytest.mark.parametrize("pair_axis", ["channels", "height"])
def test_scores_and_map(score: str, pair_axis: str) -> None:
    model = alad(score=score, pair_axis=pair_axis, channels=3)
    images = random_images(3, 3, 16)
    with torch.no_grad():
        x = prepared(images)
        x_hat = model.average_generator.network(model.average_encoder.network(x))
        _, real = model.average_xx.network(x, x)
        logit, fake = model.average_xx.network(x, x_hat)
    expected = {
        "fm": (real - fake).abs().sum(1),
        "cross_entropy": -torch.sigmoid(logit).log(),
        "l1": (x - x_hat).abs().sum((1, 2, 3)),
        "l2": (x - x_hat).square().sum((1, 2, 3)).sqrt(),
    }
    scores = model.score(images, maps=True)
    np.testing.assert_allclose(scores.score, expected[score], rtol=1e-4)
    assert set(scores.terms) == set(expected)
    for name, term in scores.terms.items():
        np.testing.assert_allclose(term, expected[name], rtol=1e-4)
    by_hand = (x - x_hat).abs().mean(1)
    np.testing.assert_allclose(scores.maps, by_hand, atol=1e-5)  # type: ignore[arg-type]


def test_the_one_optimizer_of_generator_and_encoder_does_what_two_would() -> None:
    model = alad().train()
    x = prepared(random_images(8, size=16))
    found: dict[str, torch.Tensor] = {}
    torch.manual_seed(3)
    model.training_step(x, step_with(lambda name, loss: found.update({name: loss})))
    generator, encoder = [*model.generator.parameters()], [*model.encoder.parameters()]
    together = torch.autograd.grad(found["generator_encoder"], [*generator, *encoder])

    fresh = alad().train()
    torch.manual_seed(3)
    z = torch.randn(8, 6)
    z_of_x, x_of_z = fresh.encoder(x), fresh.generator(z)
    x_hat, z_hat = fresh.generator(z_of_x), fresh.encoder(x_of_z)
    d_xz, d_xx, d_zz = (getattr(fresh, name) for name in DISCRIMINATORS)
    for a, b in ((x, z_of_x.detach()), (x_of_z.detach(), z)):
        d_xz(a, b)
    d_xx(x, x), d_xx(x, x_hat.detach()), d_zz(z, z), d_zz(z, z_hat.detach())
    encoder_part = nn.functional.softplus(d_xz(x, z_of_x)).mean()
    generator_part = nn.functional.softplus(-d_xz(x_of_z, z)).mean()
    d_xx(x, x)
    cycles = nn.functional.softplus(-d_xx(x, x_hat)[0]).mean()
    d_zz(z, z)
    cycles = cycles + nn.functional.softplus(-d_zz(z, z_hat)).mean()
    apart = [
        *torch.autograd.grad(
            generator_part + cycles, [*fresh.generator.parameters()], retain_graph=True
        ),
        *torch.autograd.grad(encoder_part + cycles, [*fresh.encoder.parameters()]),
    ]
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other, atol=1e-7, rtol=1e-3)


@pytest.mark.parametrize("term", ["discriminator_xz", "discriminator_xx", "discriminator_zz"])
def test_every_adversarial_term_reaches_generator_and_encoder(term: str) -> None:
    model = alad().train()
    # The other discriminators say nothing, so that what arrives has come through this one.
    for name in DISCRIMINATORS:
        if name != term:
            nn.init.zeros_(getattr(model, name).classifier.weight)
    found = losses_of(model, prepared(random_images(8, size=16)))
    for network in (model.generator, model.encoder):
        kernels = [parameter for parameter in network.parameters() if parameter.ndim > 1]
        gradients = torch.autograd.grad(found["generator_encoder"], kernels, retain_graph=True)
        assert all(gradient.abs().sum() > 0 for gradient in gradients)


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_discriminator_steps_lower_their_own_losses(name: str) -> None:
    x = prepared(random_images(32, size=16))
    found = train_against_the_rest(alad(learning_rate=1e-3), name, x, 25)
    assert np.mean(found[-5:]) < np.mean(found[:5])


def test_a_short_training_lowers_what_generator_and_encoder_pay() -> None:
    # Against discriminators that stand still: when all move, no loss need fall.
    x = prepared(torch.from_numpy(digits(32)))
    model = alad(image_size=32, learning_rate=1e-3)
    found = train_against_the_rest(model, "generator_encoder", x, 30)
    assert np.mean(found[-5:]) < np.mean(found[:5])
