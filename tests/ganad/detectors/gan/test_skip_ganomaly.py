"""Skip-GANomaly against what is known of the authors' code."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganad.detectors.gan.config import SkipGanomalyConfig
from ganad.detectors.gan.skip_ganomaly import SkipGanomaly, UNet
from ganad.errors import ConfigError
from ganad.training.trainer import Trainer
from tests.ganad.detectors.small import (
    InMemory,
    digits,
    losses_of,
    prepared,
    random_images,
    small,
    train_against_the_rest,
)

skip_ganomaly = partial(small, "skip_ganomaly", width=4, precision="float32")


@pytest.mark.parametrize(
    ("size", "generator", "discriminator"),
    [
        (32, 16_659_075, 1_069_700),
        (64, 29_244_035, 3_577_476),
        (128, 41_828_995, 12_787_332),
        (256, 54_413_955, 47_984_260),
    ],
)
def test_parameter_counts(size: int, generator: int, discriminator: int) -> None:
    with torch.device("meta"):
        model = SkipGanomaly(SkipGanomalyConfig(image_size=size))
    assert sum(p.numel() for p in model.generator.parameters()) == generator
    assert sum(p.numel() for p in model.discriminator.parameters()) == discriminator


def test_features_are_100_numbers_and_the_logit_is_one() -> None:
    model = skip_ganomaly(latent=100)
    logit, features = model.discriminator(prepared(random_images(2)))
    assert logit.shape == (2,)
    assert features.shape == (2, 100, 1, 1)
    assert features.min() < 0 < features.max()  # linear


class Block(nn.Module):
    """A level of pix2pix's generator as its authors nest them, in-place activations included."""

    def __init__(self, network: UNet, level: int) -> None:
        super().__init__()
        self.level = level
        self.down, self.up = network.down[level], network.up[level]
        last = level + 1 == len(network.up)
        self.inner = None if last else Block(network, level + 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.down(F.leaky_relu(x, 0.2, inplace=True) if self.level else x)
        if self.inner is not None:
            hidden = self.inner(hidden)
        hidden = self.up(F.relu(hidden, inplace=True))
        return torch.cat([x, hidden], 1) if self.level else torch.tanh(hidden)


def test_the_u_net_is_the_one_that_in_place_activations_make() -> None:
    network = skip_ganomaly().generator
    x = torch.rand(2, 1, 32, 32) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(network(x), Block(network, 0)(x.clone()))


def test_the_u_net_goes_down_to_one_pixel() -> None:
    network = skip_ganomaly().generator
    hidden = torch.zeros(1, 1, 32, 32)
    sides = []
    for down in network.down:
        hidden = down(hidden)
        sides.append((hidden.shape[1], hidden.shape[2]))
    assert sides == [(4, 16), (8, 8), (16, 4), (32, 2), (32, 1)]


def test_skip_depth_drops_the_outer_skips_and_their_inputs() -> None:
    full, none = skip_ganomaly().generator, skip_ganomaly(skip_depth=4).generator
    widths = [4, 8, 16, 32]
    for level in range(4):
        for network, factor in ((full, 2), (none, 1)):
            up = network.up[level]
            convolution = up[0] if isinstance(up, nn.Sequential) else up
            assert convolution.weight.shape[0] == factor * widths[level]
    # Without any skip the image depends on the innermost code alone.
    with torch.no_grad():
        none.down[-1].weight.zero_()
        full.down[-1].weight.zero_()
        a, b = torch.rand(1, 1, 32, 32), torch.rand(1, 1, 32, 32)
        assert torch.equal(none(a), none(b))
        assert not torch.equal(full(a), full(b))


@pytest.mark.parametrize(
    ("norm", "error"), [("l2sq", Tensor.square), ("l1", Tensor.abs)], ids=["l2sq", "l1"]
)
def test_score_is_nine_tenths_residual_and_one_tenth_latent(
    norm: str, error: Callable[[Tensor], Tensor]
) -> None:
    model = skip_ganomaly(score_norm=norm)
    images = random_images(3)
    with torch.no_grad():
        x = prepared(images)
        x_hat = model.generator(x)
        f, f_hat = (model.discriminator.features(i).flatten(1) for i in (x, x_hat))
    residual, latent = error(x - x_hat).mean((1, 2, 3)), (f - f_hat).square().mean(1)
    scores = model.score(images, maps=True)
    np.testing.assert_allclose(scores.terms["residual"], residual.numpy(), rtol=1e-4)
    np.testing.assert_allclose(scores.terms["latent"], latent.numpy(), rtol=1e-4)
    np.testing.assert_allclose(scores.score, (0.9 * residual + 0.1 * latent).numpy(), rtol=1e-4)
    assert scores.maps is not None
    np.testing.assert_allclose(scores.maps, (x - x_hat).abs().mean(1).numpy(), atol=1e-5)


def test_losses_are_the_weighted_sums_of_the_paper() -> None:
    model = skip_ganomaly(w_adv=2.0, w_con=3.0, w_lat=5.0)
    x = prepared(random_images(4))
    found = losses_of(model, x)
    x_hat = model.generator(x)
    (real, f), (fake, f_hat) = model.discriminator(x), model.discriminator(x_hat)
    one, nothing = torch.ones(4), torch.zeros(4)
    bce = F.binary_cross_entropy_with_logits
    expected = 2 * bce(fake, one) + 3 * (x - x_hat).abs().mean() + 5 * (f - f_hat).square().mean()
    torch.testing.assert_close(found["generator"], expected)
    torch.testing.assert_close(found["discriminator"], bce(real, one) + bce(fake, nothing))


def test_d_latent_adds_or_takes_off_the_latent_loss() -> None:
    x = prepared(random_images(4))
    without, plus, minus = (
        losses_of(skip_ganomaly(d_latent=sign), x)["discriminator"] for sign in ("0", "+", "-")
    )
    assert plus > without > minus
    torch.testing.assert_close(plus - without, without - minus)


def test_noise_reaches_the_generator_while_training_only() -> None:
    x = prepared(random_images(4))
    silent, noisy = (losses_of(skip_ganomaly(input_noise=s), x)["generator"] for s in (0.0, 0.5))
    assert not torch.equal(silent, noisy)
    scores = [skip_ganomaly(input_noise=s).score(random_images(4)).score for s in (0.0, 0.5)]
    np.testing.assert_array_equal(*scores)


def test_the_adversarial_term_reaches_the_generator() -> None:
    model = skip_ganomaly(w_con=0, w_lat=0)
    found = losses_of(model, prepared(random_images(4)))
    gradients = torch.autograd.grad(found["generator"], list(model.generator.parameters()))
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_training_lowers_the_reconstruction_error_of_real_images() -> None:
    images = digits(96)
    model = skip_ganomaly(width=8, epochs=12, batch_size=8, learning_rate=2e-3)
    before = model.score(torch.from_numpy(images[64:])).terms["residual"].mean()
    list(Trainer(model, InMemory(images[:64])).run())
    after = model.score(torch.from_numpy(images[64:])).terms["residual"].mean()
    assert after < 0.3 * before


def test_more_skips_than_there_are_cannot_be_dropped() -> None:
    with pytest.raises(ConfigError, match=r"^skip_depth=5 .* use 0 to 4"):
        skip_ganomaly(skip_depth=5)


def test_a_discriminator_step_lowers_its_own_loss() -> None:
    x = prepared(random_images(8))
    found = train_against_the_rest(skip_ganomaly(), "discriminator", x, 5)
    assert found[-1] < found[0]
