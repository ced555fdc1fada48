"""Each adversarial loss against a value computed by hand."""

import math

import pytest
import torch

from ganad import losses_adversarial as adversarial


def batch_mean(values: torch.Tensor) -> torch.Tensor:
    return values.mean(0)


def softplus(value: float) -> float:
    return math.log1p(math.exp(value))


def test_discriminator_bce_at_known_logits() -> None:
    real, fake = torch.tensor([0.0, 2.0]), torch.tensor([0.0, -1.0])
    expected = (softplus(0) + softplus(-2)) / 2 + (softplus(0) + softplus(-1)) / 2
    assert adversarial.discriminator_loss("bce", real, fake).item() == pytest.approx(expected)


def test_critic_loss_is_the_difference_of_means() -> None:
    real, fake = torch.tensor([3.0, 5.0]), torch.tensor([1.0, -2.0])
    assert adversarial.discriminator_loss("wgan-gp", real, fake).item() == pytest.approx(-0.5 - 4)


@pytest.mark.parametrize(("objective", "expected"), [("bce", 50.0), ("wgan-gp", 50.0)])
def test_generator_loss_does_not_saturate(objective: str, expected: float) -> None:
    value = torch.tensor([-50.0], requires_grad=True)
    loss = adversarial.generator_loss(objective, value)  # type: ignore[arg-type]
    (gradient,) = torch.autograd.grad(loss, value)
    assert loss.item() == pytest.approx(expected)
    assert gradient.item() == pytest.approx(-1.0)


@pytest.mark.parametrize("autocast", [False, True])
def test_gradient_penalty_of_a_linear_critic(autocast: bool) -> None:
    # ∇(w·x) = w wherever x̂ lies, so the penalty is (‖w‖ − 1)²; in bfloat16 it would be 2 % off.
    torch.manual_seed(0)
    linear = torch.nn.Linear(3 * 8 * 8, 1)
    x, x_tilde = torch.randn(2, 5, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = adversarial.gradient_penalty(
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
    penalty = adversarial.gradient_penalty(critic, x, torch.ones_like(x), u[:, None, None, None])
    torch.testing.assert_close(seen[0], u[:, None, None, None].expand(200, 1, 2, 2))
    # ‖∇ Σx²‖ = 2·‖x‖ = 4u
    assert penalty.item() == pytest.approx((4 * u - 1).square().mean().item(), rel=1e-5)


def test_fm_mean_sees_batch_means_alone() -> None:
    f_x, f_g = torch.tensor([[0.0, 1.0], [2.0, 1.0]]), torch.tensor([[2.0, 1.0], [0.0, 5.0]])
    assert adversarial.fm_mean(f_x, f_g, batch_mean).item() == pytest.approx((0 + 4) / 2)
    assert adversarial.fm_mean(f_x, f_x.flip(0), batch_mean).item() == 0


def test_fm_pair_compares_each_image_with_its_partner() -> None:
    f_x, f_g = torch.tensor([[0.0, 1.0], [2.0, 1.0]]), torch.tensor([[2.0, 1.0], [0.0, 5.0]])
    assert adversarial.fm_pair(f_x, f_g).tolist() == [2.0, 6.0]


def test_spread_is_the_deviation_over_the_batch() -> None:
    images = torch.tensor([[0.0, 5.0], [2.0, 5.0]])
    assert adversarial.spread(images, batch_mean).item() == pytest.approx((1 + 0) / 2)
