"""f-AnoGAN: its residual networks, its two stages, and its score."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ganad.detectors.gan.config import FanoganConfig
from ganad.detectors.gan.fanogan import Fanogan
from ganad.errors import TrainingError
from ganad.networks.resnet import ResnetCritic, ResnetEncoder, ResnetGenerator, limit
from ganad.training.trainer import Trainer
from tests.ganad.detectors.small import InMemory, ignore, prepared, random_images, small, step_with

fanogan = partial(small, "fanogan", latent=8, precision="float32")


# Networks


@pytest.mark.parametrize(
    ("channels", "generator", "critic", "encoder"),
    [(1, 8_539_329, 7_490_689, 8_531_200), (3, 8_540_483, 7_491_841, 8_532_352)],
)
def test_parameter_counts(channels: int, generator: int, critic: int, encoder: int) -> None:
    model = Fanogan(FanoganConfig(channels=channels))  # type: ignore[arg-type]
    networks = (model.generator, model.discriminator, model.encoder)
    counts = [sum(p.numel() for p in network.parameters()) for network in networks]
    assert counts == [generator, critic, encoder]


@pytest.mark.parametrize("size", [32, 64, 128, 256])
def test_codes_and_features_have_one_size_whatever_the_image_s(size: int) -> None:
    images = ResnetGenerator(size, 3, 2, 5)(torch.randn(2, 5))
    assert images.shape == (2, 3, size, size)
    assert images.abs().max() <= 1
    value, features = ResnetCritic(size, 3, 2)(images)
    assert value.shape == (2,)
    assert features.shape == (2, 128 * 2)
    assert ResnetEncoder(size, 3, 2, 5, "none")(images).shape == (2, 5)


def test_initial_weights_and_norms_are_those_of_the_code() -> None:
    model = Fanogan(FanoganConfig(channels=1))
    block = model.discriminator.features.blocks[0]  # 64 -> 128 channels
    for part, gain, fans in (
        (block.conv1, 4, 2 * 64 * 9),
        (block.conv2, 4, (64 + 128) * 9),
        (block.shortcut, 2, 64 + 128),
        (model.discriminator.features.input, 2, (1 + 64) * 9),
        (model.generator.output, 4, (64 + 1) * 9),
        (model.generator.linear, 2, 128 + 8192),
    ):
        deviation = (gain / fans) ** 0.5
        assert part.weight.std().item() == pytest.approx(deviation, rel=0.1)
        assert part.weight.abs().max().item() == pytest.approx(deviation * 3**0.5, rel=0.02)
    assert block.conv1.bias is None
    assert block.conv2.bias.abs().max() == 0
    assert isinstance(block.norm1, nn.GroupNorm)
    assert block.norm1.num_groups == 1
    assert block.norm1.eps == 1e-5
    for network in (model.generator, model.encoder):
        norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
        assert norms
        assert all((norm.momentum, norm.eps) == (0.01, 1e-3) for norm in norms)


def test_the_critic_does_not_mix_images() -> None:
    critic, images = ResnetCritic(32, 1, 4).train(), torch.randn(4, 1, 32, 32)
    torch.testing.assert_close(critic(images)[0][:1], critic(images[:1])[0])


@pytest.mark.parametrize(
    ("latent_range", "expected"),
    [
        ("none", [-4.0, 0.25]),
        ("tanh", [-0.99933, 0.24492]),
        ("3tanh", [-2.99799, 0.73476]),
        ("0.5tanh", [-0.49966, 0.12246]),
        ("clip", [-1.0, 0.25]),
        ("3clip", [-3.0, 0.25]),
        ("0.5clip", [-0.5, 0.25]),
    ],
)
def test_ranges_of_a_code(latent_range: Any, expected: list[float]) -> None:
    found = limit(torch.tensor([-4.0, 0.25]), latent_range)
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=0)


# Training


def test_the_gan_is_trained_first_and_the_encoder_then() -> None:
    model = fanogan(epochs=5, encoder_share=0.4)
    trainer = Trainer(model, InMemory(random_images(16)))  # 10 steps
    update, seen = trainer._update, list[str]()

    def watched(name: str, loss: torch.Tensor) -> None:
        before = {key: value.clone() for key, value in model.named_parameters()}
        update(name, loss)
        changed = {key for key, value in model.named_parameters() if (before[key] != value).any()}
        assert changed
        assert all(key.startswith(f"{name}.") for key in changed)
        seen.append(name)

    trainer._update = watched  # type: ignore[method-assign]
    events = [event for progress in trainer.run() for event in progress.events]
    assert seen == ["generator", "discriminator"] * 6 + ["encoder"] * 4
    assert sum("now the encoder" in event for event in events) == 1


@pytest.mark.parametrize("encoder_loss", ["izi_f", "izi", "ziz"])
def test_the_encoder_s_stage_leaves_the_frozen_networks_alone(encoder_loss: str) -> None:
    model = fanogan(encoder_loss=encoder_loss, encoder_steps=1)
    trainer = Trainer(model, InMemory(random_images(8)))
    trainer.step = trainer.total - 1
    before = {key: value.clone() for key, value in model.state_dict().items()}
    list(trainer.run())
    for key, value in model.state_dict().items():
        if key.startswith(("generator.", "discriminator.")):
            assert torch.equal(value, before[key]), key  # batch statistics as well
    assert not torch.equal(model.encoder.linear.weight, before["encoder.linear.weight"])


@pytest.mark.parametrize("encoder_loss", ["izi_f", "izi", "ziz"])
def test_encoder_losses_against_the_equations(encoder_loss: str) -> None:
    model = fanogan(encoder_loss=encoder_loss, kappa=0.3, flip=0.0).train()
    images = model.prepare(random_images(6))
    seen = {}

    def update(name: str, loss: torch.Tensor) -> None:
        seen[name] = loss

    torch.manual_seed(7)
    model.training_step(images, step_with(update, number=70))
    torch.manual_seed(7)
    torch.rand(6, 1, 1, 1)  # the draws of the mirror
    model.generator.eval()
    if encoder_loss == "ziz":
        z = torch.randn(6, 8)
        expected = (z - model.encoder(model.generator(z))).square().mean()
    else:
        x_hat = model.generator(model.encoder(images))
        expected = (images - x_hat).square().mean()
        if encoder_loss == "izi_f":
            f_x, f_x_hat = model.discriminator(images)[1], model.discriminator(x_hat)[1]
            expected = expected + 0.3 * (f_x - f_x_hat).square().mean()
    assert list(seen) == ["encoder"]
    torch.testing.assert_close(seen["encoder"], expected, rtol=1e-4, atol=0)
    gradients = torch.autograd.grad(seen["encoder"], list(model.encoder.parameters()))
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert sum(gradient.abs().sum() for gradient in gradients) > 0


@pytest.mark.parametrize("adversarial", ["bce", "wgan-gp"])
def test_the_adversarial_loss_reaches_every_weight_of_the_generator(adversarial: str) -> None:
    model = fanogan(adversarial=adversarial).train()
    seen = {}

    def update(name: str, loss: torch.Tensor) -> None:
        if name == "generator":
            parameters = [p for p in model.generator.parameters() if p.ndim > 1]
            seen[name] = torch.autograd.grad(loss, parameters, retain_graph=True)

    model.training_step(torch.rand(4, 1, 32, 32) * 2 - 1, step_with(update))
    assert all(gradient.abs().sum() > 0 for gradient in seen["generator"])


def test_every_parameter_takes_part_in_its_optimiser_s_loss_under_autocast() -> None:
    model = fanogan(precision="bfloat16", epochs=2, encoder_share=0.5)
    assert [p.step for p in Trainer(model, InMemory(random_images(8))).run()] == [1, 2]


@pytest.mark.parametrize(("flip", "mirrored"), [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)])
def test_flips_mirror_a_share_of_the_training_images(flip: float, mirrored: float) -> None:
    model, seen = fanogan(flip=flip), list[torch.Tensor]()
    model.play = lambda images, step, num_steps: seen.append(images) or {}  # type: ignore[method-assign, func-returns-value, assignment, return-value]
    image = torch.arange(32.0).expand(200, 1, 32, 32)
    torch.manual_seed(0)
    model.training_step(image, step_with(ignore))
    turned = (seen[0] == image.flip(3)).flatten(1).all(1)
    assert ((seen[0] == image).flatten(1).all(1) | turned).all()
    assert turned.float().mean().item() == pytest.approx(mirrored, abs=0.1)


def test_steps_of_the_encoder_that_leave_none_to_the_gan_are_refused() -> None:
    trainer = Trainer(fanogan(epochs=2, encoder_steps=2), InMemory(random_images(8)))
    with pytest.raises(TrainingError, match="^encoder_steps=2 leaves nothing of the 2 steps"):
        next(trainer.run())


def test_an_encoder_that_says_nothing_is_reported() -> None:
    model, events = fanogan().train(), list[str]()
    nn.init.zeros_(model.encoder.linear.weight)
    images = model.prepare(random_images(8))
    model.training_step(images, step_with(ignore, number=99, event=events.append))
    assert any("no nearer to the images" in event for event in events)
    events.clear()
    model.training_step(images, step_with(ignore, number=50, total=60, event=events.append))
    assert any("nearly the same code" in event for event in events)
    assert any(event.startswith("mode collapse: reconstructions") for event in events)


# Scoring


def test_score_terms_and_map_against_the_equations() -> None:
    model = fanogan(kappa=0.5)
    images = random_images(3)
    scores = model.score(images, maps=True)
    with torch.no_grad():
        x = prepared(images)
        z = model.encoder(x)
        x_hat = model.generator(z)
        f_x, f_x_hat = model.discriminator(x)[1], model.discriminator(x_hat)[1]
        image = (x - x_hat).square().mean((1, 2, 3)).numpy()
        feature = (f_x - f_x_hat).square().mean(1).numpy()
        distance = (z - model.encoder(x_hat)).square().mean(1).numpy()
    np.testing.assert_allclose(scores.terms["image"], image, rtol=1e-4)
    np.testing.assert_allclose(scores.terms["feature"], feature, rtol=1e-4)
    np.testing.assert_allclose(scores.terms["z_distance"], distance, rtol=1e-3)
    np.testing.assert_allclose(scores.score, image + 0.5 * feature, rtol=1e-4)
    assert scores.maps is not None
    np.testing.assert_allclose(scores.maps, (x - x_hat).abs().mean(1).numpy(), atol=1e-5)


# Config
