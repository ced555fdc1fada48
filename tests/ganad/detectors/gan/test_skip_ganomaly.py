"""Skip-GANomaly against what is known of the authors' code."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from ganad.detectors.base import Step
from ganad.detectors.collapse import MAX_RESETS
from ganad.detectors.gan.config import SkipGanomalyConfig
from ganad.detectors.gan.skip_ganomaly import SkipGanomaly, UNet
from ganad.errors import ConfigError, TrainingError
from ganad.training.trainer import Trainer


def small(**keys: object) -> SkipGanomaly:
    values = {"image_size": 32, "channels": 1, "width": 4, "latent": 10, "precision": "float32"}
    torch.manual_seed(0)
    return SkipGanomaly(SkipGanomalyConfig(**{**values, **keys})).eval()


def step_with(update: Callable[[str, Tensor], None]) -> Step:
    return Step(
        update=update,
        number=0,
        total=1,
        mean=lambda value: value.item(),
        reset_optimizer=lambda name: None,
        event=lambda text: None,
    )


def images_of(num: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (num, 1, 32, 32), generator=generator, dtype=torch.uint8)


class InMemory:
    def __init__(self, images: np.ndarray) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def take(self, positions: np.ndarray) -> np.ndarray:
        return self.images[positions]


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
    model = small(latent=100)
    logit, features = model.discriminator(images_of(2) / 127.5 - 1)
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
    network = small().generator
    x = torch.rand(2, 1, 32, 32) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(network(x), Block(network, 0)(x.clone()))


def test_the_u_net_goes_down_to_one_pixel() -> None:
    network = small().generator
    hidden = torch.zeros(1, 1, 32, 32)
    sides = []
    for down in network.down:
        hidden = down(hidden)
        sides.append((hidden.shape[1], hidden.shape[2]))
    assert sides == [(4, 16), (8, 8), (16, 4), (32, 2), (32, 1)]


def test_skip_depth_drops_the_outer_skips_and_their_inputs() -> None:
    full, none = small().generator, small(skip_depth=4).generator
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
    model = small(score_norm=norm)
    images = images_of(3)
    with torch.no_grad():
        x = images.float() / 127.5 - 1
        x_hat = model.generator(x)
        f, f_hat = (model.discriminator.features(i).flatten(1) for i in (x, x_hat))
    residual, latent = error(x - x_hat).mean((1, 2, 3)), (f - f_hat).square().mean(1)
    scores = model.score(images, maps=True)
    np.testing.assert_allclose(scores.terms["residual"], residual.numpy(), rtol=1e-4)
    np.testing.assert_allclose(scores.terms["latent"], latent.numpy(), rtol=1e-4)
    np.testing.assert_allclose(scores.score, (0.9 * residual + 0.1 * latent).numpy(), rtol=1e-4)
    assert scores.maps is not None
    np.testing.assert_allclose(scores.maps, (x - x_hat).abs().mean(1).numpy(), atol=1e-5)


def losses_of(model: SkipGanomaly, images: Tensor) -> dict[str, Tensor]:
    """The loss of each optimiser at one training step, from the same noise and batch."""
    found: dict[str, Tensor] = {}
    torch.manual_seed(3)
    model.train().training_step(images, step_with(found.__setitem__))
    return found


def test_losses_are_the_weighted_sums_of_the_paper() -> None:
    model = small(w_adv=2.0, w_con=3.0, w_lat=5.0)
    x = images_of(4).float() / 127.5 - 1
    found = losses_of(model, x)
    x_hat = model.generator(x)
    (real, f), (fake, f_hat) = model.discriminator(x), model.discriminator(x_hat)
    one, nothing = torch.ones(4), torch.zeros(4)
    bce = F.binary_cross_entropy_with_logits
    expected = 2 * bce(fake, one) + 3 * (x - x_hat).abs().mean() + 5 * (f - f_hat).square().mean()
    torch.testing.assert_close(found["generator"], expected)
    torch.testing.assert_close(found["discriminator"], bce(real, one) + bce(fake, nothing))


def test_d_latent_adds_or_takes_off_the_latent_loss() -> None:
    x = images_of(4).float() / 127.5 - 1
    without, plus, minus = (
        losses_of(small(d_latent=sign), x)["discriminator"] for sign in ("0", "+", "-")
    )
    assert plus > without > minus
    torch.testing.assert_close(plus - without, without - minus)


def test_noise_reaches_the_generator_while_training_only() -> None:
    x = images_of(4).float() / 127.5 - 1
    silent, noisy = (losses_of(small(input_noise=s), x)["generator"] for s in (0.0, 0.5))
    assert not torch.equal(silent, noisy)
    scores = [small(input_noise=s).score(images_of(4)).score for s in (0.0, 0.5)]
    np.testing.assert_array_equal(*scores)


def test_the_adversarial_term_reaches_the_generator() -> None:
    model = small(w_con=0, w_lat=0)
    found = losses_of(model, images_of(4).float() / 127.5 - 1)
    gradients = torch.autograd.grad(found["generator"], list(model.generator.parameters()))
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


@pytest.mark.parametrize("d_latent", ["0", "+", "-"])
def test_each_optimizer_changes_its_own_network_only(d_latent: str) -> None:
    # With "+" the authors' code stops here, its graph running through weights just changed.
    model = small(d_latent=d_latent, batch_size=4)
    trainer = Trainer(model, InMemory(images_of(4).numpy()))
    networks = {"generator": model.generator, "discriminator": model.discriminator}
    update = trainer._update

    def watched(name: str, loss: Tensor) -> None:
        before = {key: [p.clone() for p in net.parameters()] for key, net in networks.items()}
        update(name, loss)
        for key, net in networks.items():
            same = [torch.equal(*two) for two in zip(before[key], net.parameters(), strict=True)]
            assert all(same) if key != name else not any(same)

    trainer._update = watched  # type: ignore[method-assign]
    assert next(trainer.run()).step == 1


def test_a_discriminator_step_lowers_its_own_loss() -> None:
    model = small()
    x = images_of(8).float() / 127.5 - 1
    optimizer = model.optimizers()["discriminator"]
    found = []
    for _ in range(5):
        loss = losses_of(model, x)["discriminator"]
        found.append(loss.item())
        optimizer.zero_grad()
        loss.backward(inputs=list(model.discriminator.parameters()))
        optimizer.step()
    assert found[-1] < found[0]


def test_training_lowers_the_reconstruction_error_of_real_images() -> None:
    pixels = (load_digits().images[:96] * (255 / 16)).astype(np.uint8)
    digits = pixels.repeat(4, 1).repeat(4, 2)[:, None]
    model = small(width=8, epochs=12, batch_size=8, learning_rate=2e-3)
    before = model.score(torch.from_numpy(digits[64:])).terms["residual"].mean()
    list(Trainer(model, InMemory(digits[:64])).run())
    after = model.score(torch.from_numpy(digits[64:])).terms["residual"].mean()
    assert after < 0.3 * before


class Winner(nn.Module):
    """A discriminator that is always right, so that its loss vanishes."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.calls = inner, 0

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logit, features = self.inner(images)
        self.calls += 1
        return logit * 0 + (100.0 if self.calls % 2 else -100.0), features


def test_a_collapsed_discriminator_is_drawn_anew_with_its_optimiser() -> None:
    model = small(batch_size=8)
    inner = model.discriminator
    model.discriminator = Winner(inner)  # type: ignore[assignment]
    trainer = Trainer(model, InMemory(images_of(16).numpy()))
    before = inner.classifier.weight.detach().clone()
    first = next(trainer.run())
    assert "reinitialized" in first.events[0]
    assert int(model.num_resets) == 1
    assert not torch.equal(before, inner.classifier.weight)
    assert not trainer.optimizers["discriminator"].state
    assert trainer.optimizers["generator"].state


def test_a_discriminator_that_keeps_collapsing_stops_the_training() -> None:
    model = small(batch_size=8, epochs=MAX_RESETS)
    model.discriminator = Winner(model.discriminator)  # type: ignore[assignment]
    with pytest.raises(TrainingError, match="^skip_ganomaly: .* collapsed 21 times"):
        list(Trainer(model, InMemory(images_of(16).numpy())).run())


def test_losses_that_are_no_numbers_stop_the_training_and_reset_nothing() -> None:
    model = small(batch_size=8, epochs=1)
    trainer = Trainer(model, InMemory(images_of(16).numpy()))
    with torch.no_grad():
        model.generator.down[0].weight.fill_(torch.nan)
    with pytest.raises(TrainingError, match="became nan"):
        list(trainer.run())
    assert int(model.num_resets) == 0


@pytest.mark.parametrize("size", [8, 16, 48, 512])
def test_sizes_that_do_not_halve_to_one_are_refused(size: int) -> None:
    with pytest.raises((ConfigError, ValueError), match="image_size"):
        small(image_size=size)


def test_more_skips_than_there_are_cannot_be_dropped() -> None:
    with pytest.raises(ConfigError, match=r"^skip_depth=5 .* use 0 to 4"):
        small(skip_depth=5)
