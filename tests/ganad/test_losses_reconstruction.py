"""Losses of the reconstruction methods against values worked out by hand."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from ganad import losses_reconstruction as losses

C1, C2 = 1e-4, 9e-4


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_squared_error() -> None:
    x, x_hat = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 5.0]])
    assert losses.squared_error(x, x_hat).item() == 5.0  # (1 + 9) / 2


def test_ssim_of_equal_images_is_one() -> None:
    x = random(2, 3, 16, 16)
    torch.testing.assert_close(losses.ssim_map(x, x), torch.ones_like(x))
    assert losses.ssim_loss(x, x).item() == pytest.approx(0, abs=1e-6)


def test_ssim_of_two_plain_images_is_their_luminance_term() -> None:
    x, y = torch.full((1, 1, 16, 16), 0.2), torch.full((1, 1, 16, 16), 0.6)
    expected = (2 * 0.2 * 0.6 + C1) / (0.2**2 + 0.6**2 + C1)
    # Variances are differences of float32 moments, hence not quite 0 beside C2.
    torch.testing.assert_close(
        losses.ssim_map(x, y), torch.full_like(x, expected), atol=1e-4, rtol=0
    )
    assert losses.ssim_loss(x, y).item() == pytest.approx(1 - expected, abs=1e-4)


def test_ssim_at_a_pixel_is_the_formula_over_its_window() -> None:
    x, y = random(1, 1, 16, 16), random(1, 1, 16, 16, seed=1)
    row, column = 7, 8
    axis = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    weights = np.outer(axis, axis) / axis.sum() ** 2
    a, b = (z[0, 0, row - 5 : row + 6, column - 5 : column + 6].double().numpy() for z in (x, y))
    mu_a, mu_b = (weights * a).sum(), (weights * b).sum()
    var_a, var_b = (weights * (a - mu_a) ** 2).sum(), (weights * (b - mu_b) ** 2).sum()
    covariance = (weights * (a - mu_a) * (b - mu_b)).sum()
    expected = (2 * mu_a * mu_b + C1) * (2 * covariance + C2)
    expected /= (mu_a**2 + mu_b**2 + C1) * (var_a + var_b + C2)
    assert losses.ssim_map(x, y)[0, 0, row, column].item() == pytest.approx(expected, rel=1e-4)


def test_ssim_of_an_image_and_its_negative_is_below_zero() -> None:
    x = random(1, 1, 32, 32)
    assert losses.ssim_loss(x, 1 - x).item() > 1


def test_ssim_is_float32_under_autocast() -> None:
    x, y = random(1, 1, 16, 16), random(1, 1, 16, 16, seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = losses.ssim_map(x, y)
    assert torch.equal(under_autocast, losses.ssim_map(x, y))


@pytest.mark.parametrize("sigma", [0.7, 2.0])
def test_blur_is_scipy_s(sigma: float) -> None:
    images = random(2, 1, 20, 24)
    blurred = losses.gaussian_blur(images, sigma)
    for i in range(2):
        expected = gaussian_filter(images[i, 0].numpy(), sigma, mode="mirror", truncate=4)
        np.testing.assert_allclose(blurred[i, 0].numpy(), expected, atol=1e-5)


def test_a_blur_wider_than_the_image_keeps_a_plain_image() -> None:
    plain = torch.full((1, 2, 16, 16), 3.0)
    torch.testing.assert_close(losses.gaussian_blur(plain, 40.0), plain)


def test_gaussian_nll_is_a_sum_over_pixels() -> None:
    x, x_hat = torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4)
    x_hat[1] = 2
    assert losses.gaussian_nll(x, x_hat).tolist() == [24.0, 96.0]  # ½·48·1², ½·48·2²


def test_kl_by_hand() -> None:
    mu = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]]).view(3, 2, 1, 1)
    log_variance = torch.tensor([[0.0, 0.0], [0.0, 0.0], [math.log(4), 0.0]]).view(3, 2, 1, 1)
    expected = [0.0, 0.5, 0.5 * (4 - 1 - math.log(4)) + 2.0]
    np.testing.assert_allclose(
        losses.kl_to_standard_normal(mu, log_variance).numpy(), expected, rtol=1e-6
    )


def test_kl_agrees_with_monte_carlo() -> None:
    mu, log_variance = torch.tensor([[0.7, -1.2, 0.1]]), torch.tensor([[-0.5, 0.8, 0.0]])
    posterior = torch.distributions.Normal(mu, torch.exp(0.5 * log_variance))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        z = posterior.sample((200_000,))
    ratio = posterior.log_prob(z) - torch.distributions.Normal(0.0, 1.0).log_prob(z)
    assert losses.kl_to_standard_normal(mu, log_variance).item() == pytest.approx(
        ratio.sum(-1).mean().item(), abs=0.02
    )


def test_log_variance_is_kept_where_exp_is_tame() -> None:
    clamped = losses.clamp_log_variance(torch.tensor([-1e9, -3.0, 5.0, 1e9]))
    assert clamped.tolist() == [-10.0, -3.0, 5.0, 10.0]


def test_warm_up_rises_linearly_over_its_share_of_the_steps() -> None:
    assert [losses.warm_up(number, 100, 0.1) for number in (0, 5, 10, 99)] == [0.0, 0.5, 1.0, 1.0]
    assert losses.warm_up(0, 100, 0.0) == 1.0
