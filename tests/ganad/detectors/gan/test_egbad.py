"""EGBAD against what is known of the authors' code."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from ganad.detectors.base import Step
from ganad.detectors.collapse import MAX_RESETS
from ganad.detectors.gan.config import EgbadConfig
from ganad.detectors.gan.egbad import Egbad
from ganad.errors import ConfigError, TrainingError
from ganad.training.trainer import Trainer


class Images:
    """Training images from an array."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, positions: np.ndarray) -> np.ndarray:
        return self.pixels[positions]


def small(**keys: object) -> Egbad:
    values: dict[str, Any] = {
        "image_size": 16,
        "channels": 1,
        "width": 4,
        "latent": 6,
        "features": 16,
    }
    torch.manual_seed(0)
    values |= {"precision": "float32", "epochs": 2, **keys}
    return Egbad(EgbadConfig.model_validate(values)).eval()


def noise(num: int, channels: int = 1, size: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    shape = (num, channels, size, size)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def digits(num: int) -> np.ndarray:
    """Handwritten digits at 32 pixels."""
    eight = (load_digits().images[:num] * 255 / 16).astype(np.uint8)
    return eight.repeat(4, axis=1).repeat(4, axis=2)[:, None]


def step_with(update: Callable[[str, torch.Tensor], None], **keys: object) -> Step:
    values = {"number": 0, "total": 1, "event": lambda text: None, **keys}
    return Step(
        update=update,
        mean=lambda value: value.item(),
        reset_optimizer=lambda name: None,
        **values,  # type: ignore[arg-type]
    )


def test_parameter_counts_at_the_size_of_the_authors() -> None:
    with torch.device("meta"):
        model = Egbad(EgbadConfig(image_size=28, channels=1))
    counts = [
        sum(parameter.numel() for parameter in network.parameters())
        for network in (model.encoder, model.generator, model.discriminator)
    ]
    assert counts == [1_347_656, 6_781_505, 3_907_329]


def by_hand(model: Egbad, images: torch.Tensor) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        x = images.float() / 127.5 - 1
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
    model = small(score=score, channels=3, batch_size=8)
    images = noise(16, channels=3)
    list(Trainer(model, Images(images.numpy())).run())
    expected = by_hand(model, images)
    scores = model.score(images, maps=True)
    np.testing.assert_allclose(
        scores.terms["reconstruction"], expected["reconstruction"], rtol=1e-5
    )
    np.testing.assert_allclose(scores.terms["discriminator"], expected[score], rtol=1e-4)
    total = 0.9 * expected["reconstruction"] + 0.1 * expected[score]
    np.testing.assert_allclose(scores.score, total, rtol=1e-5)
    np.testing.assert_allclose(scores.maps, expected["map"], atol=1e-5)  # type: ignore[arg-type]


@pytest.mark.parametrize("score", ["fm", "cross_entropy"])
def test_a_score_is_independent_of_the_batch(score: str) -> None:
    model = small(score=score, batch_size=8)
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
    model = small(epochs=3, batch_size=8, learning_rate=1e-3)
    list(Trainer(model, Images(noise(32).numpy())).run())
    images = noise(4)
    scores = model.score(images).score
    loaded = small()
    loaded.load_state_dict(model.state_dict())
    # Trained weights lie channels-last in memory, new ones do not: the last bits may differ.
    np.testing.assert_allclose(loaded.score(images).score, scores, rtol=1e-6)
    for network in (model.encoder, model.generator, model.discriminator):
        for parameter in network.parameters():
            nn.init.zeros_(parameter)
    np.testing.assert_array_equal(model.score(images).score, scores)


def test_each_optimizer_changes_only_its_own_network() -> None:
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
    assert changed == {name: {name} for name in ("discriminator", "generator", "encoder")}


def test_the_adversarial_terms_reach_generator_and_encoder() -> None:
    model = small().train()
    seen = {}

    def update(name: str, loss: torch.Tensor) -> None:
        network = getattr(model, name)
        seen[name] = torch.autograd.grad(loss, [*network.parameters()], retain_graph=True)

    model.training_step(noise(8).float() / 127.5 - 1, step_with(update))
    # Biases before a batch norm have no gradient by nature.
    for name in ("generator", "encoder", "discriminator"):
        kernels = [gradient for gradient in seen[name] if gradient.ndim > 1]
        assert all(gradient.abs().sum() > 0 for gradient in kernels), name


def test_generator_and_encoder_answer_to_the_updated_discriminator() -> None:
    model = small().train()
    losses = {}

    def update(name: str, loss: torch.Tensor) -> None:
        losses[name] = loss.item()
        if name == "discriminator":  # as if it had learned to call every pair real
            nn.init.zeros_(model.discriminator.classifier.weight)
            nn.init.constant_(model.discriminator.classifier.bias, 5.0)

    model.training_step(noise(8).float() / 127.5 - 1, step_with(update))
    assert losses["generator"] == pytest.approx(np.log1p(np.exp(-5.0)), rel=1e-5)
    assert losses["encoder"] == pytest.approx(np.log1p(np.exp(5.0)), rel=1e-5)


def test_a_discriminator_step_lowers_its_own_loss() -> None:
    model = small().train()
    images = noise(32).float() / 127.5 - 1
    optimizer = model.optimizers()["discriminator"]
    found = []

    def update(name: str, loss: torch.Tensor) -> None:
        if name == "discriminator":
            found.append(loss.item())
            optimizer.zero_grad()
            loss.backward(retain_graph=True, inputs=[*model.discriminator.parameters()])
            for group in optimizer.param_groups:
                group["lr"] = 1e-3
            optimizer.step()

    for _ in range(30):
        model.training_step(images, step_with(update))
    assert np.mean(found[-5:]) < np.mean(found[:5])


@pytest.mark.parametrize("name", ["generator", "encoder"])
def test_a_step_against_a_fixed_discriminator_lowers_the_loss(name: str) -> None:
    model = small(batch_size=32, learning_rate=1e-3).train()
    images = noise(32).float() / 127.5 - 1
    optimizer = model.optimizers()[name]
    found = []

    def update(other: str, loss: torch.Tensor) -> None:
        if other == name:
            found.append(loss.item())
            optimizer.zero_grad()
            loss.backward(retain_graph=True, inputs=[*getattr(model, name).parameters()])
            optimizer.step()

    for _ in range(30):
        model.training_step(images, step_with(update))
    assert np.mean(found[-5:]) < np.mean(found[:5])


def test_a_short_training_brings_reconstructions_nearer() -> None:
    pixels = digits(128)
    keys = {"image_size": 32, "width": 4, "features": 64, "latent": 16}
    model = small(**keys, epochs=30, batch_size=32, learning_rate=4e-3)
    before = model.score(torch.from_numpy(pixels[:64])).terms["reconstruction"].mean()
    list(Trainer(model, Images(pixels)).run())
    after = model.score(torch.from_numpy(pixels[:64])).terms["reconstruction"].mean()
    assert after < 0.8 * before


def test_a_training_that_came_to_nothing_is_reported() -> None:
    last = list(Trainer(small(batch_size=8), Images(noise(16).numpy())).run())[-1]
    assert "further from the images than their mean image" in last.events[0]


def test_plain_images_have_finite_scores() -> None:
    levels = torch.tensor([0, 128, 255], dtype=torch.uint8).view(3, 1, 1, 1)
    scores = small().score(levels.expand(3, 1, 16, 16).contiguous())
    assert np.isfinite(scores.score).all()


class Winner(nn.Module):
    """A discriminator that is always right, so that its loss vanishes."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.calls = inner, 0

    def forward(self, images: torch.Tensor, codes: torch.Tensor) -> tuple[torch.Tensor, ...]:
        logit, features = self.inner(images, codes)
        self.calls += 1
        return logit * 0 + (100.0 if self.calls % 2 else -100.0), features


def test_a_collapsed_discriminator_is_drawn_anew_with_its_optimiser() -> None:
    model = small(batch_size=8, epochs=2)
    inner = model.discriminator
    model.discriminator = Winner(inner)  # type: ignore[assignment]
    model.average_discriminator = nn.ModuleList()  # type: ignore[assignment]
    model.average_discriminator.update = lambda network, number: None  # type: ignore[method-assign]
    before = inner.classifier.weight.detach().clone()
    trainer = Trainer(model, Images(noise(16).numpy()))
    first = next(trainer.run())
    assert "discriminator collapsed" in first.events[0]
    assert int(model.num_resets) == 1
    assert not torch.equal(before, inner.classifier.weight)
    assert not trainer.optimizers["discriminator"].state  # Adam's moments are gone too
    assert trainer.optimizers["generator"].state
    model.num_resets.fill_(MAX_RESETS)
    with pytest.raises(TrainingError, match=r"^egbad: the discriminator collapsed 21 times"):
        list(trainer.run())


def test_a_loss_that_is_no_number_is_no_collapse() -> None:
    model = small(batch_size=8, epochs=13, learning_rate=1e30)
    with pytest.raises(TrainingError, match=r"^egbad: the \w+ loss became nan"):
        list(Trainer(model, Images(noise(16).numpy())).run())
    assert int(model.num_resets) == 0


def test_other_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^image_size=48 .* use one of 16, 28, 32, 64"):
        EgbadConfig(image_size=48)
