"""Each loss against a value computed by hand."""

import math

import pytest
import torch

from ganad import losses


def test_contextual_is_the_mean_absolute_difference() -> None:
    x, x_hat = torch.tensor([[1.0, -1.0]]), torch.tensor([[0.5, 0.5]])
    assert losses.contextual(x, x_hat).item() == pytest.approx((0.5 + 1.5) / 2)


def test_encoder_distance_is_the_mean_square() -> None:
    z, z_hat = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]])
    assert losses.encoder_distance(z, z_hat).item() == pytest.approx((1 + 4) / 2)


def test_feature_pair_compares_each_image_with_its_own_reconstruction() -> None:
    f_x, f_x_hat = torch.tensor([[0.0], [2.0]]), torch.tensor([[2.0], [0.0]])
    assert losses.feature_pair(f_x, f_x_hat).item() == pytest.approx(4.0)  # batch means are equal


def test_discriminator_bce_at_known_logits() -> None:
    real, fake = torch.tensor([0.0, 2.0]), torch.tensor([0.0, -1.0])
    expected = 0.5 * (
        (math.log(2) + math.log1p(math.exp(-2))) / 2 + (math.log(2) + math.log1p(math.exp(-1))) / 2
    )
    assert losses.discriminator_bce(real, fake).item() == pytest.approx(expected)


def test_generator_bce_does_not_saturate_where_the_discriminator_is_sure() -> None:
    logit = torch.tensor([-50.0], requires_grad=True)
    loss = losses.generator_bce(logit)
    (gradient,) = torch.autograd.grad(loss, logit)
    assert loss.item() == pytest.approx(50.0)
    assert gradient.item() == pytest.approx(-1.0)


def test_absolute_map_averages_over_channels() -> None:
    x, x_hat = torch.zeros(1, 3, 1, 1), torch.tensor([0.0, 0.3, -0.6]).reshape(1, 3, 1, 1)
    assert losses.absolute_map(x, x_hat).shape == (1, 1, 1)
    assert losses.absolute_map(x, x_hat).item() == pytest.approx(0.3)


def test_total_weighs_its_losses() -> None:
    assert losses.total([(2.0, torch.tensor(3.0)), (0.5, torch.tensor(4.0))]).item() == 8.0


def test_losses_of_half_precision_are_taken_in_float32() -> None:
    large = torch.full((4,), 300.0, dtype=torch.bfloat16)
    loss = losses.encoder_distance(large, torch.zeros(4, dtype=torch.bfloat16))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(90000.0)
