"""Each loss against a value worked out by hand."""

import io
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from ganad import losses

LN2 = math.log(2)
C1, C2 = 1e-4, 9e-4


def test_absolute_error_is_the_mean_absolute_difference() -> None:
    x, x_hat = torch.tensor([[1.0, -1.0]]), torch.tensor([[0.5, 0.5]])
    assert losses.absolute_error(x, x_hat).item() == pytest.approx((0.5 + 1.5) / 2)


def test_squared_error_is_the_mean_square() -> None:
    z, z_hat = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]])
    assert losses.squared_error(z, z_hat).item() == pytest.approx((1 + 4) / 2)


def test_squared_error_compares_each_image_with_its_own_reconstruction() -> None:
    f_x, f_x_hat = torch.tensor([[0.0], [2.0]]), torch.tensor([[2.0], [0.0]])
    assert losses.squared_error(f_x, f_x_hat).item() == pytest.approx(4.0)  # batch means are equal


def test_absolute_map_averages_over_channels() -> None:
    x, x_hat = torch.zeros(1, 3, 1, 1), torch.tensor([0.0, 0.3, -0.6]).reshape(1, 3, 1, 1)
    assert losses.absolute_map(x, x_hat).shape == (1, 1, 1)
    assert losses.absolute_map(x, x_hat).item() == pytest.approx(0.3)


def test_total_weighs_its_losses() -> None:
    assert losses.total([(2.0, torch.tensor(3.0)), (0.5, torch.tensor(4.0))]).item() == 8.0


def test_losses_of_half_precision_are_taken_in_float32() -> None:
    large = torch.full((4,), 300.0, dtype=torch.bfloat16)
    loss = losses.squared_error(large, torch.zeros(4, dtype=torch.bfloat16))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(90000.0)


def ce(logit: float, target: int) -> float:
    probability = 1 / (1 + math.exp(-logit))
    return -math.log(probability if target else 1 - probability)


def test_an_undecided_discriminator_costs_two_ln_2() -> None:
    zero = torch.zeros(4)
    assert losses.discriminator_bce(zero, zero).item() == pytest.approx(2 * LN2)
    assert losses.cycle(zero, zero).item() == pytest.approx(2 * LN2)


def test_losses_are_means_of_cross_entropies() -> None:
    real, fake = torch.tensor([2.0, -1.0]), torch.tensor([0.5, -3.0])
    called_real = (ce(0.5, 1) + ce(-3, 1)) / 2
    called_fake = (ce(2, 0) + ce(-1, 0)) / 2
    assert losses.called_real(fake).item() == pytest.approx(called_real, rel=1e-5)
    assert losses.called_fake(real).item() == pytest.approx(called_fake, rel=1e-5)
    assert losses.cycle(real, fake).item() == pytest.approx(called_real + called_fake, rel=1e-5)
    expected = (ce(2, 1) + ce(-1, 1)) / 2 + (ce(0.5, 0) + ce(-3, 0)) / 2
    assert losses.discriminator_bce(real, fake).item() == pytest.approx(expected, rel=1e-5)


def test_a_certain_discriminator_leaves_finite_losses() -> None:
    sure = torch.tensor([1e4])
    assert losses.discriminator_bce(sure, -sure).item() == 0
    assert losses.called_real(-sure).item() == pytest.approx(1e4)


def test_distances_are_sums_per_image() -> None:
    a = torch.tensor([[[1.0, -2.0], [0.0, 0.0]], [[0.0, 0.0], [3.0, 4.0]]])
    b = torch.zeros_like(a)
    assert losses.l1_distance(a, b).tolist() == [3.0, 7.0]
    assert losses.l2_distance(a, b).tolist() == pytest.approx([math.sqrt(5), 5.0])
    assert losses.l1_distance(a.bfloat16(), b).dtype == torch.float64
    assert losses.l1_distance(a, b, torch.float32).dtype == torch.float32


def test_surprise_is_small_where_the_discriminator_sees_a_real_pair() -> None:
    logits = torch.tensor([-3.0, 0.0, 3.0])
    expected = [ce(-3, 1), LN2, ce(3, 1)]
    assert losses.surprise(logits).tolist() == pytest.approx(expected)


def batch_mean(values: torch.Tensor) -> torch.Tensor:
    return values.mean(0)


def test_critic_loss_is_the_difference_of_means() -> None:
    real, fake = torch.tensor([3.0, 5.0]), torch.tensor([1.0, -2.0])
    assert losses.wgan_critic(real, fake).item() == pytest.approx(-0.5 - 4)


@pytest.mark.parametrize("loss", [losses.called_real, losses.wgan_generator])
def test_generator_loss_does_not_saturate(loss: Callable[[Tensor], Tensor]) -> None:
    value = torch.tensor([-50.0], requires_grad=True)
    found = loss(value)
    (gradient,) = torch.autograd.grad(found, value)
    assert found.item() == pytest.approx(50.0)
    assert gradient.item() == pytest.approx(-1.0)


@pytest.mark.parametrize("autocast", [False, True])
def test_gradient_penalty_of_a_linear_critic(autocast: bool) -> None:
    # ∇(w·x) = w wherever x̂ lies, so the penalty is (‖w‖ − 1)²; in bfloat16 it would be 2 % off.
    torch.manual_seed(0)
    linear = torch.nn.Linear(3 * 8 * 8, 1)
    x, x_tilde = torch.randn(2, 5, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = losses.gradient_penalty(
            lambda x: linear(x.flatten(1)), x, x_tilde.bfloat16(), torch.rand(5, 1, 1, 1)
        )
    expected = (linear.weight.norm() - 1) ** 2
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    # It is there to be minimised: d/dw (‖w‖ − 1)² = 2(‖w‖ − 1)·w/‖w‖.
    (gradient,) = torch.autograd.grad(found, linear.weight)
    norm = linear.weight.norm()
    torch.testing.assert_close(gradient, 2 * (norm - 1) * linear.weight / norm)


def test_gradient_penalty_lies_between_each_image_and_its_partner() -> None:
    seen = []

    def critic(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.detach())
        return x.square().sum((1, 2, 3))

    x = torch.zeros(200, 1, 2, 2)
    u = torch.linspace(0, 1, 200)
    penalty = losses.gradient_penalty(critic, x, torch.ones_like(x), u[:, None, None, None])
    torch.testing.assert_close(seen[0], u[:, None, None, None].expand(200, 1, 2, 2))
    # ‖∇ Σx²‖ = 2·‖x‖ = 4u
    assert penalty.item() == pytest.approx((4 * u - 1).square().mean().item(), rel=1e-5)


def test_fm_mean_sees_batch_means_alone() -> None:
    f_x, f_g = torch.tensor([[0.0, 1.0], [2.0, 1.0]]), torch.tensor([[2.0, 1.0], [0.0, 5.0]])
    assert losses.fm_mean(f_x, f_g, batch_mean).item() == pytest.approx((0 + 4) / 2)
    assert losses.fm_mean(f_x, f_x.flip(0), batch_mean).item() == 0


def test_spread_is_the_deviation_over_the_batch() -> None:
    images = torch.tensor([[0.0, 5.0], [2.0, 5.0]])
    assert losses.spread(images, batch_mean).item() == pytest.approx((1 + 0) / 2)


def test_of_class_takes_each_image_s_own_column() -> None:
    logits = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert losses.of_class(logits, torch.tensor([1, 0])).tolist() == [2.0, 3.0]


def test_classification_adds_real_and_fake() -> None:
    # P(y|x) = 3/4 for the real image, 1/2 for the fake one.
    real, fake = torch.tensor([[math.log(3), 0.0]]), torch.zeros(1, 2)
    found = losses.classification(real, fake, torch.tensor([0]))
    assert found.item() == pytest.approx(-math.log(3 / 4) - math.log(1 / 2))


def test_source_surprise_is_that_of_the_likeliest_class() -> None:
    real = torch.tensor([[-5.0, math.log(3)]])  # D = 3/4 for the second class
    assert losses.source_surprise(real).item() == pytest.approx(-math.log(3 / 4))


def test_source_surprise_does_not_overflow() -> None:
    assert losses.source_surprise(torch.tensor([[-1000.0]])).item() == pytest.approx(1000.0)


def test_class_surprise_is_largest_where_the_classes_are_even() -> None:
    logits = torch.tensor([[0.0, 0.0], [math.log(9), 0.0]])
    assert losses.class_surprise(logits).tolist() == pytest.approx([math.log(2), -math.log(0.9)])


def test_class_surprise_of_one_class_is_nothing() -> None:
    assert losses.class_surprise(torch.tensor([[7.0]])).item() == 0


def test_joint_surprise_takes_both_terms_of_one_class() -> None:
    # D(x, c) = 1/4, 3/4 and P(c|x) = 3/4, 1/4: both products are 3/16.
    real = torch.tensor([[-math.log(3), math.log(3)]])
    classes = torch.tensor([[math.log(3), 0.0]])
    assert losses.joint_surprise(real, classes).item() == pytest.approx(-math.log(3 / 16))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


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


def test_quantise_cuts_bytes_into_equal_ranges() -> None:
    x = torch.tensor([0.0, 15.0, 16.0, 255.0]) / 127.5 - 1
    assert losses.quantise(x, 16).tolist() == [0, 0, 1, 15]
    assert losses.quantise(x, 2).tolist() == [0, 0, 0, 1]


def test_every_byte_comes_back_unchanged_with_256_levels() -> None:
    byte = torch.arange(256)
    x = byte.float().div(127.5).sub(1.0)
    q = losses.quantise(x, 256)
    assert q.tolist() == byte.tolist()
    torch.testing.assert_close(losses.dequantise(q, 256), x)


def test_few_levels_span_the_whole_range() -> None:
    assert losses.dequantise(torch.tensor([0, 1, 2]), 3).tolist() == [-1.0, 0.0, 1.0]


def test_bits_of_a_coin_and_of_a_sure_model() -> None:
    # Two values of two levels each: p = (1/2, 1/2), and p = (1/4, 3/4).
    logits = torch.tensor([[0.0, 0.0], [0.0, math.log(3)]]).reshape(1, 1, 2, 1, 2)
    logits = logits.transpose(2, 4).contiguous()  # n, c, levels, h, w
    found = losses.bits(logits, torch.tensor([1, 1]).reshape(1, 1, 1, 2))
    assert found.shape == (1, 1, 1, 2)
    assert found.flatten().tolist() == pytest.approx([1.0, math.log2(4 / 3)])


def test_bits_of_an_even_softmax_are_those_of_a_raw_image() -> None:
    q = torch.randint(0, 256, (2, 3, 4, 5))
    found = losses.bits(torch.zeros(2, 3, 256, 4, 5), q)
    assert found.shape == q.shape
    torch.testing.assert_close(found, torch.full(q.shape, 8.0))


def test_expectation_is_the_mean_over_levels() -> None:
    logits = torch.tensor([0.0, math.log(3)]).reshape(1, 1, 2, 1, 1)
    assert losses.expectation(logits).item() == pytest.approx(-1 / 4 + 3 / 4)


@pytest.mark.parametrize("channels", [1, 3])
def test_compressed_bits_are_those_of_a_png_file_that_holds_the_image(channels: int) -> None:
    rng = np.random.default_rng(0)
    q = rng.integers(0, 256, (1, channels, 16, 16), dtype=np.uint8)
    picture = q[0, 0] if channels == 1 else q[0].transpose(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", optimize=True)
    assert losses.compressed_bits(torch.from_numpy(q)).tolist() == [
        8 * len(file.getvalue()) / q.size
    ]
    np.testing.assert_array_equal(np.asarray(Image.open(file)), picture)


def test_a_plain_image_compresses_better_than_noise() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1, 1, 32, 32), dtype=np.uint8)
    both = torch.from_numpy(np.concatenate([np.full_like(noise, 9), noise]))
    plain, noisy = losses.compressed_bits(both)
    assert plain < 1
    assert noisy > 8
