"""ALAD against what is known of the authors' code."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from ganad.detectors.base import Step
from ganad.detectors.gan.alad import Alad
from ganad.detectors.gan.config import AladConfig
from ganad.errors import ConfigError, TrainingError
from ganad.training.trainer import Trainer

DISCRIMINATORS = ("discriminator_xz", "discriminator_xx", "discriminator_zz")


class Images:
    """Training images from an array."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, positions: np.ndarray) -> np.ndarray:
        return self.pixels[positions]


def small(**keys: object) -> Alad:
    values = {"image_size": 16, "channels": 1, "width": 8, "latent": 6, "precision": "float32"}
    torch.manual_seed(0)
    return Alad(AladConfig.model_validate({**values, "epochs": 2, **keys})).eval()


def noise(num: int, channels: int = 1, size: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    shape = (num, channels, size, size)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def digits(num: int) -> np.ndarray:
    """Handwritten digits at 32 pixels."""
    eight = (load_digits().images[:num] * 255 / 16).astype(np.uint8)
    return eight.repeat(4, axis=1).repeat(4, axis=2)[:, None]


def step_with(update: Callable[[str, torch.Tensor], None]) -> Step:
    return Step(
        update=update,
        number=0,
        total=1,
        mean=lambda value: value.item(),
        reset_optimizer=lambda name: None,
        event=lambda text: None,
    )


@pytest.mark.parametrize("score", ["fm", "cross_entropy", "l1", "l2"])
@pytest.mark.parametrize("pair_axis", ["channels", "height"])
def test_scores_and_map(score: str, pair_axis: str) -> None:
    model = small(score=score, pair_axis=pair_axis, channels=3)
    images = noise(3, channels=3)
    with torch.no_grad():
        x = images.float() / 127.5 - 1
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


def test_a_score_is_independent_of_the_batch() -> None:
    model = small(batch_size=8)
    list(Trainer(model, Images(noise(16).numpy())).run())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = noise(64)
    together = model.score(images).score
    for size in (1, 7):
        parts = [model.score(images[i : i + size]).score for i in range(0, 21, size)]
        np.testing.assert_allclose(np.concatenate(parts), together[:21], rtol=1e-5)
    order = torch.randperm(64)
    np.testing.assert_allclose(model.score(images[order]).score, together[order], rtol=1e-5)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_the_averages_score_and_are_saved() -> None:
    model = small(epochs=2, batch_size=8, learning_rate=1e-3)
    list(Trainer(model, Images(noise(32).numpy())).run())
    images = noise(4)
    scores = model.score(images).score
    loaded = small()
    loaded.load_state_dict(model.state_dict())
    # Trained weights lie channels-last in memory, new ones do not: the last bits may differ.
    np.testing.assert_allclose(loaded.score(images).score, scores, rtol=1e-6)
    for network in (model.encoder, model.generator, model.discriminator_xx):
        for parameter in network.parameters():
            nn.init.zeros_(parameter)
    np.testing.assert_array_equal(model.score(images).score, scores)


def test_each_optimizer_changes_only_its_own_networks() -> None:
    model = small(batch_size=8, epochs=1)
    trainer = Trainer(model, Images(noise(8).numpy()))
    update, changed = trainer._update, {}

    def watched(name: str, loss: torch.Tensor) -> None:
        before = {key: value.detach().clone() for key, value in model.named_parameters()}
        update(name, loss)
        changed[name] = {
            key.split(".")[0]
            for key, value in model.named_parameters()
            if not torch.equal(before[key], value)
        }

    trainer._update = watched  # type: ignore[method-assign]
    next(trainer.run())
    assert changed == {
        **{name: {name} for name in DISCRIMINATORS},
        "generator_encoder": {"generator", "encoder"},
    }


def test_the_one_optimizer_of_generator_and_encoder_does_what_two_would() -> None:
    model = small().train()
    x = noise(8).float() / 127.5 - 1
    found: dict[str, torch.Tensor] = {}
    torch.manual_seed(3)
    model.training_step(x, step_with(lambda name, loss: found.update({name: loss})))
    generator, encoder = [*model.generator.parameters()], [*model.encoder.parameters()]
    together = torch.autograd.grad(found["generator_encoder"], [*generator, *encoder])

    fresh = small().train()
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
    model = small().train()
    # The other discriminators say nothing, so that what arrives has come through this one.
    for name in DISCRIMINATORS:
        if name != term:
            nn.init.zeros_(getattr(model, name).classifier.weight)
    found: dict[str, torch.Tensor] = {}
    model.training_step(
        noise(8).float() / 127.5 - 1, step_with(lambda name, loss: found.update({name: loss}))
    )
    for network in (model.generator, model.encoder):
        kernels = [parameter for parameter in network.parameters() if parameter.ndim > 1]
        gradients = torch.autograd.grad(found["generator_encoder"], kernels, retain_graph=True)
        assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_discriminator_steps_lower_their_own_losses() -> None:
    model = small(learning_rate=1e-3).train()
    images = noise(32).float() / 127.5 - 1
    optimizers = model.optimizers()
    found: dict[str, list[float]] = {name: [] for name in DISCRIMINATORS}

    def update(name: str, loss: torch.Tensor) -> None:
        if name in found:
            found[name].append(loss.item())
            optimizers[name].zero_grad()
            inputs = [*getattr(model, name).parameters()]
            loss.backward(retain_graph=True, inputs=inputs)
            optimizers[name].step()

    for _ in range(25):
        model.training_step(images, step_with(update))
    for name, values in found.items():
        assert np.mean(values[-5:]) < np.mean(values[:5]), name


def test_a_short_training_lowers_what_generator_and_encoder_pay() -> None:
    # Against discriminators that stand still: when all move, no loss need fall.
    model = small(image_size=32, learning_rate=1e-3).train()
    images = torch.from_numpy(digits(32)).float() / 127.5 - 1
    optimizer = model.optimizers()["generator_encoder"]
    found = []

    def update(name: str, loss: torch.Tensor) -> None:
        if name == "generator_encoder":
            found.append(loss.item())
            optimizer.zero_grad()
            parameters = [*model.generator.parameters(), *model.encoder.parameters()]
            loss.backward(inputs=parameters)
            optimizer.step()

    for _ in range(30):
        model.training_step(images, step_with(update))
    assert np.mean(found[-5:]) < np.mean(found[:5])


def test_plain_images_have_finite_scores() -> None:
    levels = torch.tensor([0, 128, 255], dtype=torch.uint8).view(3, 1, 1, 1)
    scores = small().score(levels.expand(3, 1, 16, 16).contiguous())
    assert np.isfinite(scores.score).all()


class Winner(nn.Module):
    """A discriminator of codes that is always right, so that its loss vanishes."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.calls = inner, 0

    def forward(self, codes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.inner(codes, others) * 0 + (100.0 if self.calls % 2 else -100.0)


def test_only_the_collapsed_discriminator_is_drawn_anew() -> None:
    model = small(batch_size=8, epochs=2)
    inner = model.discriminator_zz
    model.discriminator_zz = Winner(inner)  # type: ignore[assignment]
    before = inner.classifier.weight.detach().clone()
    trainer = Trainer(model, Images(noise(8).numpy()))
    first = next(trainer.run())
    assert len(first.events) == 1
    assert first.events[0].startswith("discriminator_zz collapsed")
    assert int(model.num_resets) == 1
    assert not torch.equal(before, inner.classifier.weight)
    assert not trainer.optimizers["discriminator_zz"].state
    assert trainer.optimizers["discriminator_xz"].state


def test_a_discriminator_that_keeps_collapsing_stops_the_training() -> None:
    model = small(batch_size=8, epochs=30)
    model.discriminator_zz = Winner(model.discriminator_zz)  # type: ignore[assignment]
    with pytest.raises(TrainingError, match=r"^alad: the discriminator_[xz]+ collapsed 21 times"):
        list(Trainer(model, Images(noise(8).numpy())).run())


def test_sizes_that_do_not_halve_to_four_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^image_size=28 "):
        AladConfig(image_size=28)
