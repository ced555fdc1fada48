"""AnoGAN: DCGAN's training, and scores from the search."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from ganad.detectors.collapse import MAX_RESETS
from ganad.detectors.gan.anogan import Anogan
from ganad.detectors.gan.config import AnoganConfig, FanoganConfig
from ganad.detectors.gan.fanogan import Fanogan
from ganad.detectors.gan.game import PATIENCE
from ganad.errors import ConfigError, TrainingError
from ganad.model import Model
from ganad.training.trainer import Trainer
from tests.ganad.detectors.small import (
    InMemory,
    ignore,
    make_always_right,
    random_images,
    small,
    step_with,
    train_against_the_rest,
)

anogan = partial(
    small,
    "anogan",
    width=4,
    latent=8,
    search_steps=12,
    search_rate=0.05,
    search_batch=4,
    precision="float32",
)


SMALL = {"image_size": 32, "channels": 1, "width": 4, "latent": 8, "batch_size": 8}


# Networks


def test_the_networks_of_64_pixels_have_anogan_s_widths() -> None:
    model = Anogan(AnoganConfig(channels=1))
    layers = model.generator.layers
    up = [part for part in layers.modules() if isinstance(part, nn.ConvTranspose2d)]
    assert [part.out_channels for part in up] == [512, 256, 128, 64, 1]
    down = [part for part in model.discriminator.modules() if isinstance(part, nn.Conv2d)]
    assert [part.out_channels for part in down] == [64, 128, 256, 512, 1]
    assert [part.bias is not None for part in (*up, *down)] == [False] * 4 + [True] + [
        False
    ] * 4 + [True]
    assert up[1].weight.std().item() == pytest.approx(0.02, rel=0.01)
    generator = 100 * 512 * 16 + 16 * (512 * 256 + 256 * 128 + 128 * 64 + 64) + 1 + 2 * 960
    discriminator = 16 * (64 + 64 * 128 + 128 * 256 + 256 * 512 + 512) + 1 + 2 * 896
    assert sum(p.numel() for p in model.generator.parameters()) == generator
    assert sum(p.numel() for p in model.discriminator.parameters()) == discriminator


def test_the_discriminator_shows_what_its_last_layer_sees() -> None:
    model = anogan(image_size=64)
    value, features = model.discriminator(torch.randn(3, 1, 64, 64))
    assert value.shape == (3,)
    assert features.shape == (3, 32, 4, 4)


def test_a_critic_under_gradient_penalty_does_not_mix_images() -> None:
    critic = anogan(adversarial="wgan-gp").discriminator.train()
    images = torch.randn(4, 1, 32, 32)
    alone = critic(images[:1])[0]
    torch.testing.assert_close(critic(images)[0][:1], alone)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in critic.modules())


# Training


@pytest.mark.parametrize("adversarial", ["bce", "wgan-gp"])
@pytest.mark.parametrize("w_fm", [0.0, 1.0])
def test_the_adversarial_loss_reaches_every_weight_of_the_generator(
    adversarial: str, w_fm: float
) -> None:
    model = anogan(adversarial=adversarial, w_fm=w_fm).train()
    seen = {}

    def update(name: str, loss: torch.Tensor) -> None:
        parameters = list(getattr(model, name).parameters())
        seen[name] = torch.autograd.grad(loss, parameters, retain_graph=True)

    model.training_step(torch.rand(4, 1, 32, 32) * 2 - 1, step_with(update))
    assert set(seen) == {"generator", "discriminator"}
    assert all(gradient.abs().sum() > 0 for gradient in seen["generator"])


def test_losses_of_a_step_against_the_equations() -> None:
    model = anogan(adversarial="wgan-gp", w_fm=2.0, gradient_penalty=3.0).train()
    images = torch.rand(4, 1, 32, 32) * 2 - 1
    seen = {}

    def update(name: str, loss: torch.Tensor) -> None:
        seen[name] = loss.item()

    torch.manual_seed(5)
    report = model.training_step(images, step_with(update))
    torch.manual_seed(5)
    fake = model.generator(torch.randn(4, 8))
    (real_value, real_features), (value, features) = (
        model.discriminator(some) for some in (images, fake)
    )
    distance = (real_features.mean(0) - features.mean(0)).square().mean().item()
    assert seen["generator"] == pytest.approx(-value.mean().item() + 2 * distance, rel=1e-4)
    expected = (value.mean() - real_value.mean()).item() + 3 * report["gradient_penalty"].item()
    assert seen["discriminator"] == pytest.approx(expected, rel=1e-4)
    assert report["gradient_penalty"] > 0


def test_the_generator_learns_once_in_n_critic_steps() -> None:
    model = anogan(adversarial="wgan-gp", n_critic=3).train()
    seen: list[str] = []
    for number in range(6):
        step = step_with(lambda name, loss: seen.append(name), number=number)
        model.training_step(torch.rand(4, 1, 32, 32) * 2 - 1, step)
    both = ["generator", "discriminator"]
    assert seen == ["discriminator", "discriminator", *both] * 2


def test_more_critic_steps_than_steps_are_refused() -> None:
    model = anogan(n_critic=9, epochs=2)
    with pytest.raises(TrainingError, match="^n_critic=9 is more than the 4 steps"):
        next(Trainer(model, InMemory(random_images(16))).run())


@pytest.mark.parametrize("adversarial", ["bce", "wgan-gp"])
@pytest.mark.parametrize("player", ["generator", "discriminator"])
def test_a_player_s_steps_lower_its_own_loss(adversarial: str, player: str) -> None:
    model = anogan(adversarial=adversarial, gradient_penalty=0.1)
    images = model.prepare(random_images(8))
    found = train_against_the_rest(model, player, images, 8, seed=0)
    assert found[-1] < found[0] - 0.01


def test_a_discriminator_that_has_won_for_long_is_drawn_anew_with_its_optimiser() -> None:
    model = anogan(epochs=PATIENCE)
    make_always_right(model.discriminator)
    trainer = Trainer(model, InMemory(random_images(8)))
    steps = trainer.run()
    for _ in range(PATIENCE - 1):
        assert not next(steps).events
    before = model.discriminator.classifier.weight.detach().clone()
    assert "reinitialized" in next(steps).events[0]
    assert not torch.equal(before, model.discriminator.classifier.weight)
    assert not trainer.optimizers["discriminator"].state  # Adam's moments are gone too
    assert trainer.optimizers["generator"].state


def test_a_discriminator_that_keeps_winning_stops_the_training() -> None:
    model = anogan().train()
    make_always_right(model.discriminator)
    images = torch.rand(2, 1, 32, 32)
    model.num_resets.fill_(MAX_RESETS)
    for number in range(PATIENCE - 1):
        model.training_step(images, step_with(ignore, number=number))
    with pytest.raises(TrainingError, match="^anogan: the discriminator collapsed 21 times"):
        model.training_step(images, step_with(ignore, number=PATIENCE))


def test_mode_collapse_is_reported_once_and_so_is_its_end() -> None:
    model = anogan().train()
    images = torch.rand(8, 1, 32, 32) * 2 - 1
    events: list[str] = []
    for number in range(50, 151, 25):
        step = step_with(ignore, number=number, event=events.append)
        model.training_step(images, step)  # a generator without training draws grey alone
    assert len(events) == 1
    assert events[0].startswith("mode collapse: generated images differ")
    last = model.generator.layers[-2]
    nn.init.normal_(last.weight, 0, 1)
    model.training_step(images, step_with(ignore, number=200, event=events.append))
    assert len(events) == 2
    assert "has passed" in events[1]


def test_the_grey_pictures_of_the_beginning_are_no_mode_collapse() -> None:
    model, events = anogan().train(), list[str]()
    step = step_with(ignore, number=0, event=events.append)
    model.training_step(torch.rand(8, 1, 32, 32) * 2 - 1, step)
    assert not events


# Scoring


def test_a_score_is_the_same_to_the_last_bit_in_any_company() -> None:
    model = anogan()
    images, ids = random_images(64), [f"id{i}" for i in range(64)]
    # Weights of N(0, 0.02) draw grey alone, and then there is nothing to search.
    for part in model.generator.modules():
        if isinstance(part, nn.ConvTranspose2d):
            nn.init.normal_(part.weight, 0, 0.2)
    together = model.score(images, ids, maps=True)
    for start, size in ((0, 1), (5, 1), (7, 7)):
        part = slice(start, start + size)
        some = model.score(images[part], ids[part], maps=True)
        np.testing.assert_array_equal(some.score, together.score[part])
        np.testing.assert_array_equal(some.maps, together.maps[part])  # type: ignore[index, arg-type]
    order = torch.randperm(64, generator=torch.Generator().manual_seed(2))
    shuffled = model.score(images[order], [ids[i] for i in order])
    np.testing.assert_array_equal(shuffled.score, together.score[order.numpy()])


def test_score_and_map_against_the_equations() -> None:
    model = anogan(feature_share=0.2)
    images = random_images(3)
    scores = model.score(images, ["a", "b", "c"], maps=True)
    x = model.prepare(images)
    with model.scoring():
        image = model.search(x, ["a", "b", "c"]).images
        f_x, f_image = (model.discriminator.features(some) for some in (x, image))
    residual = (x - image).abs().sum((1, 2, 3)).numpy()
    discrimination = (f_x - f_image).abs().sum((1, 2, 3)).numpy()
    np.testing.assert_allclose(scores.terms["residual"], residual, rtol=1e-4)
    np.testing.assert_allclose(scores.terms["discrimination"], discrimination, rtol=1e-4)
    np.testing.assert_allclose(scores.score, 0.8 * residual + 0.2 * discrimination, rtol=1e-4)
    np.testing.assert_allclose(scores.maps, (x - image).abs().mean(1).numpy(), atol=1e-6)  # type: ignore[arg-type]


def test_starts_come_from_the_seed_and_the_image_s_id() -> None:
    starts = anogan(restarts=2).starts(["a", "b", "a"])
    assert starts.shape == (3, 2, 8)
    assert torch.equal(starts[0], starts[2])
    assert not torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0, 0], starts[0, 1])
    assert not torch.equal(starts[0], anogan(restarts=2, seed=1).starts(["a"])[0])
    many = anogan(latent=100).starts([str(i) for i in range(100)])
    assert many.mean().abs() < 0.05
    assert abs(many.std() - 1) < 0.05


def test_reconstructions_are_the_images_found() -> None:
    model = anogan()
    x = model.prepare(random_images(2))
    with model.scoring():
        found = model.reconstruct(x)
    assert found.shape == x.shape
    assert found.abs().max() <= 1


# The start at E(x) of a saved f-AnoGAN


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(3)
    fanogan = Fanogan(FanoganConfig(**SMALL))
    return Model(fanogan.eval(), None).save(str(tmp_path_factory.mktemp("fanogan") / "model"))


def test_a_warm_start_takes_the_networks_and_begins_at_the_code(saved: str) -> None:
    torch.manual_seed(3)
    fanogan = Fanogan(FanoganConfig(**SMALL)).eval()
    model = anogan(warm_start=saved, search_steps=1, search_rate=1e-6)
    images = random_images(5)
    x = model.prepare(images)
    with model.scoring(), fanogan.scoring():
        expected, code = fanogan.reconstruct(x), fanogan.encoder(x)
        found = model.search(x, ["a"] * 5)
    torch.testing.assert_close(found.z, code, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.images, expected, atol=1e-4, rtol=0)


def test_a_warm_started_model_stands_without_the_f_anogan(saved: str) -> None:
    model = anogan(warm_start=saved)
    config = AnoganConfig(**{**model.config.model_dump(), "warm_start": "/nowhere"})
    copy = Anogan.from_saved(config).eval()
    copy.load_state_dict(model.state_dict())
    images = random_images(2)
    np.testing.assert_allclose(copy.score(images).score, model.score(images).score, rtol=1e-4)


def test_a_warm_start_trains_nothing_and_says_so(saved: str) -> None:
    model = anogan(warm_start=saved, epochs=1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    first = next(Trainer(model, InMemory(random_images(8))).run())
    assert first.events[0].startswith("nothing is trained")
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_a_warm_start_that_does_not_fit_is_refused(saved: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="^latent=9 differs from warm_start: set latent to 8"):
        anogan(warm_start=saved, latent=9)
    with pytest.raises(ConfigError, match="^warm_start=.* is not a saved fanogan"):
        anogan(warm_start=str(tmp_path))
    Model(anogan(), None).save(str(tmp_path / "anogan"))
    with pytest.raises(ConfigError, match="^warm_start=.* is not a saved fanogan"):
        anogan(warm_start=str(tmp_path / "anogan"))


# Config


@pytest.mark.parametrize(
    ("key", "value"), [("image_size", 48), ("search_steps", 0), ("feature_share", 1.5)]
)
def test_values_that_cannot_be_used_are_refused(key: str, value: float) -> None:
    with pytest.raises((ValidationError, ConfigError), match=key):
        AnoganConfig(**{key: value})
