"""What must hold for every detector, tried on all that are trained by gradient."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ganad.detectors import DETECTORS, configure
from ganad.detectors.base import StatisticsDetector
from ganad.detectors.collapse import MAX_RESETS
from ganad.errors import ConfigError, TrainingError
from ganad.training.fit import fit_statistics
from ganad.training.trainer import Trainer
from tests.ganad.detectors.small import (
    GRADIENT,
    MAPS,
    ON_MAPS,
    SMALL,
    InMemory,
    make_always_right,
    random_images,
    small,
)

Case = tuple[str, dict[str, Any]]
PLAIN: dict[str, Case] = {name: (name, {}) for name in GRADIENT}
MAPPED: dict[str, Case] = {f"{name} on maps": (name, MAPS) for name in ON_MAPS}
SCORES: dict[str, Case] = {
    "autoencoder, ssim": ("autoencoder", {"score": "ssim"}),
    "vae, elbo": ("vae", {"score": "elbo"}),
    "vae, draws": ("vae", {"score": "recon_prob", "num_draws": 3}),
    "egbad, cross-entropy": ("egbad", {"score": "cross_entropy"}),
    "anogan, two starts": ("anogan", {"restarts": 2}),
}
TRAININGS: dict[str, Case] = {
    "fanogan, three critic steps": ("fanogan", {"n_critic": 3, "encoder_share": 0.4}),
    "anogan, wgan-gp": ("anogan", {"adversarial": "wgan-gp", "n_critic": 2, "w_fm": 1.0}),
    "acgan, batch-norm": ("acgan", {"discriminator_norm": "batch"}),
    "vae, varied": ("vae", {"augment": {"flip_vertical": True, "rotate": 20, "brightness": 0.1}}),
    "skip_ganomaly, noise": ("skip_ganomaly", {"input_noise": 0.1}),
    # With "+" the authors' code stops, its graph running through weights just changed.
    "skip_ganomaly, +": ("skip_ganomaly", {"d_latent": "+"}),
    "skip_ganomaly, -": ("skip_ganomaly", {"d_latent": "-"}),
    "ganomaly, a grid": ("ganomaly", {**MAPS, "code_side": 4}),
}
CASES = {**PLAIN, **MAPPED, **SCORES, **TRAININGS}


def made(case: str, **keys: Any) -> Any:
    name, own = CASES[case]
    return small(name, **own, **keys)


def images_for(model: Any, num: int, size: int = 32) -> torch.Tensor:
    return random_images(num, model.config.channels, size)


def test_every_detector_is_tried_at_a_small_size() -> None:
    assert set(SMALL) == set(DETECTORS)


# Scores


@pytest.mark.parametrize(
    ("case", "precision"),
    [(case, "float32") for case in (*PLAIN, *MAPPED, *SCORES)]
    + [(case, "bfloat16") for case in PLAIN],
)
def test_a_score_depends_on_the_model_and_that_image_alone(case: str, precision: str) -> None:
    model = made(case, precision=precision)
    images = images_for(model, 64)
    ids = [f"id{i}" for i in range(64)]
    together = model.score(images, ids).score
    for size in (1, 7):
        for start in range(0, 21, size):
            part = slice(start, start + size)
            found = model.score(images[part], ids[part]).score
            np.testing.assert_allclose(found, together[part], rtol=1e-5, atol=0)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(2))
    shuffled = model.score(images[order], [ids[i] for i in order]).score
    np.testing.assert_allclose(shuffled, together[order.numpy()], rtol=1e-5, atol=0)
    stranger = torch.cat([images[:1], torch.full_like(images[:5], 255)])
    beside = model.score(stranger, ["id0", "a", "b", "c", "d", "e"]).score
    np.testing.assert_allclose(beside[0], together[0], rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", DETECTORS)
def test_a_batch_that_is_not_filled_up_gives_the_same_scores(name: str) -> None:
    channels = 1 if name in GRADIENT else 3
    model = small(name, channels=channels, precision="float32")
    fitted_on, images = random_images(24, channels).split(12)
    if isinstance(model, StatisticsDetector):
        fit_statistics(model, InMemory(fitted_on))
    model.eval()
    # A score may be near zero: the difference counts beside the spread of the scores, too.
    atol = 1e-4 * float(np.ptp(model.score(images).score))
    for num in (1, 3):
        filled = model.score(images[:num], maps=True)
        alone = model.score(images[:num], maps=True, pad=False)
        np.testing.assert_allclose(alone.score, filled.score, rtol=1e-5, atol=atol)
        for term, values in filled.terms.items():
            np.testing.assert_allclose(alone.terms[term], values, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", [*PLAIN, *MAPPED])
def test_scoring_changes_nothing_in_the_model(case: str) -> None:
    model = made(case).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    trained = {key: value.requires_grad for key, value in model.named_parameters()}
    model.score(images_for(model, 3))
    assert model.training
    assert trained == {key: value.requires_grad for key, value in model.named_parameters()}
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("name", GRADIENT)
def test_sizes_and_channels(name: str, size: int, channels: int) -> None:
    model = small(name, image_size=size, channels=channels)
    scores = model.score(random_images(2, channels, size), maps=True)
    assert scores.score.shape == (2,)
    assert scores.score.dtype == np.float64
    assert np.isfinite(scores.score).all()
    if scores.maps is not None:
        assert scores.maps.shape == (2, size, size)


@pytest.mark.parametrize("case", [*PLAIN, *MAPPED, *SCORES])
def test_blank_and_single_colour_images_have_finite_scores(case: str) -> None:
    model = made(case)
    levels = torch.tensor([0, 128, 255], dtype=torch.uint8).reshape(3, 1, 1, 1)
    images = levels.expand(3, model.config.channels, 32, 32).contiguous()
    scores = model.score(images, maps=True)
    assert np.isfinite(scores.score).all()
    assert scores.maps is None or np.isfinite(scores.maps).all()


# Training


@pytest.mark.parametrize("case", [*PLAIN, *MAPPED, "skip_ganomaly, +", "skip_ganomaly, -"])
def test_each_optimizer_changes_only_its_own_networks(case: str) -> None:
    model = made(case)
    trainer = Trainer(model, InMemory(model.represent(images_for(model, 16))))
    owner: dict[int, str] = {}
    for optimizer, parameters in trainer.parameters.items():
        for parameter in parameters:
            assert id(parameter) not in owner, "two optimisers share a parameter"
            owner[id(parameter)] = optimizer
    changed: dict[str, set[str]] = {}
    update = trainer._update

    def watched(optimizer: str, loss: torch.Tensor) -> None:
        before = {key: value.detach().clone() for key, value in model.named_parameters()}
        update(optimizer, loss)
        for key, value in model.named_parameters():
            if not torch.equal(before[key], value):
                changed.setdefault(optimizer, set()).add(owner.get(id(value), "nobody's"))

    trainer._update = watched  # type: ignore[method-assign]
    next(trainer.run())
    assert changed
    for optimizer, owners in changed.items():
        assert owners == {optimizer}


@pytest.mark.parametrize("case", [*PLAIN, *MAPPED, *TRAININGS])
def test_a_run_resumed_at_any_step_ends_like_an_undisturbed_one(case: str, tmp_path: Path) -> None:
    images = InMemory(made(case).represent(images_for(made(case), 24)))

    def trainer() -> Trainer:
        return Trainer(made(case, epochs=2, precision="float32"), images)

    def place(step: int) -> Path:
        return tmp_path / f"{step}.pt"

    def finish(trainer: Trainer) -> list[dict[str, float]]:
        """The losses reported; the state after each step is kept."""
        reported = []
        for progress in trainer.run():
            reported += [progress.losses] if progress.losses else []
            if not place(progress.step).exists():
                torch.save(trainer.state(), place(progress.step))
        return reported

    whole = trainer()
    losses = finish(whole)
    assert whole.total == 6
    end = torch.load(place(6), weights_only=True)
    for step in range(1, whole.total):
        second = trainer()
        second.restore(torch.load(place(step), weights_only=True))
        torch.manual_seed(99)  # whatever the process has drawn before
        assert finish(second)[-1] == losses[-1]
        assert_same(second.state(), end)


def assert_same(found: Any, expected: Any) -> None:
    """Bit by bit, through nested dicts and lists."""
    assert type(found) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected)
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    else:
        assert found == expected


@pytest.mark.parametrize("name", GRADIENT)
def test_a_loss_that_is_not_a_number_stops_the_training_and_resets_nothing(name: str) -> None:
    model = small(name, epochs=4)
    for parameter in model.parameters():
        nn.init.constant_(parameter, torch.nan)
    with pytest.raises(TrainingError, match=rf"^{name}: the \w+ loss became nan"):
        list(Trainer(model, InMemory(random_images(16))).run())
    assert int(getattr(model, "num_resets", 0)) == 0


# Guards


DISCRIMINATORS = {
    "ganomaly": "discriminator",
    "skip_ganomaly": "discriminator",
    "egbad": "discriminator",
    "alad": "discriminator_zz",
    "acgan": "discriminator",
}


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_a_collapsed_discriminator_is_reset_with_its_optimizer(name: str) -> None:
    optimizer = DISCRIMINATORS[name]
    model = small(name, epochs=MAX_RESETS + 1)
    discriminator = getattr(model, optimizer)
    make_always_right(discriminator, one_batch=name == "acgan")
    before = [parameter.detach().clone() for parameter in discriminator.parameters()]
    trainer = Trainer(model, InMemory(random_images(8)))
    run = trainer.run()
    assert [event.partition(" (")[0] for event in next(run).events] == [f"{optimizer} collapsed"]
    assert int(model.num_resets) == 1
    after = [*discriminator.parameters()]
    assert not all(torch.equal(*pair) for pair in zip(before, after, strict=True))
    assert not trainer.optimizers[optimizer].state  # Adam's moments are gone too
    others = [one for key, one in trainer.optimizers.items() if key != optimizer]
    assert all(other.state for other in others)
    model.num_resets.fill_(MAX_RESETS)
    with pytest.raises(TrainingError, match=rf"^{name}: the {optimizer} collapsed 21 times"):
        list(run)


@pytest.mark.parametrize("name", ["autoencoder", "egbad", "alad"])
def test_a_training_that_came_to_nothing_is_reported(name: str) -> None:
    model = small(name, epochs=2, learning_rate=1e-12)
    *_, last = Trainer(model, InMemory(random_images(16))).run()
    assert "further from the images than their mean image" in last.events[0]


@pytest.mark.parametrize("name", ["egbad", "alad"])
def test_the_averages_score_and_are_saved(name: str) -> None:
    model = small(name, epochs=3, learning_rate=1e-3)
    list(Trainer(model, InMemory(random_images(16))).run())
    images = random_images(4)
    scores = model.score(images).score
    loaded = small(name)
    loaded.load_state_dict(model.state_dict())
    # Trained weights lie channels-last in memory, new ones do not: the last bits may differ.
    np.testing.assert_allclose(loaded.score(images).score, scores, rtol=1e-6)
    for key, parameter in model.named_parameters():
        if not key.startswith("average"):
            nn.init.zeros_(parameter)
    np.testing.assert_array_equal(model.score(images).score, scores)


# Config


@pytest.mark.parametrize(
    ("name", "size", "known"),
    [
        *((name, 48, "16, 32, 64, 128, 256") for name in ("ganomaly", "autoencoder", "vae")),
        *((name, 8, "16, 32, 64, 128, 256") for name in ("alad", "anogan", "acgan")),
        ("egbad", 48, "16, 28, 32, 64, 128, 256"),
        *((name, 16, "32, 64, 128, 256") for name in ("skip_ganomaly", "fanogan")),
        *((name, 512, "") for name in (*ON_MAPS, "acgan")),
    ],
)
def test_sizes_without_networks_are_refused(name: str, size: int, known: str) -> None:
    with pytest.raises(ConfigError, match=rf"^image_size={size} .* use one of {known}"):
        configure(name, {"image_size": size})


@pytest.mark.parametrize("images", [torch.zeros(1, 1, 64, 64, dtype=torch.uint8), torch.zeros(1)])
@pytest.mark.parametrize("name", ["ganomaly", "pixelcnn"])
def test_images_of_another_size_or_kind_are_refused(name: str, images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="decode them"):
        small(name).prepare(images)
