"""What must hold for every detector, tried on all that are trained by gradient."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ganad.detectors import DETECTORS
from ganad.detectors.base import GradientDetector
from ganad.training.trainer import Trainer
from tests.ganad.detectors.small import GRADIENT, SMALL, InMemory, random_images, small


def test_every_detector_is_tried_at_a_small_size() -> None:
    assert set(SMALL) == set(DETECTORS)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", GRADIENT)
def test_a_score_depends_on_the_model_and_that_image_alone(name: str, precision: str) -> None:
    model = small(name, precision=precision)
    images = random_images(64)
    ids = [f"id{i}" for i in range(64)]
    together = model.score(images, ids)
    for size in (1, 7):
        for start in range(0, 21, size):
            part = model.score(images[start : start + size], ids[start : start + size])
            np.testing.assert_allclose(
                part.score, together.score[start : start + size], rtol=1e-5, atol=0
            )
    order = torch.randperm(64, generator=torch.Generator().manual_seed(2))
    shuffled = model.score(images[order], [ids[i] for i in order])
    np.testing.assert_allclose(shuffled.score, together.score[order.numpy()], rtol=1e-5, atol=0)
    stranger = torch.cat([images[:1], torch.full_like(images[:5], 255)])
    beside = model.score(stranger, ["id0", "a", "b", "c", "d", "e"])
    np.testing.assert_allclose(beside.score[0], together.score[0], rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", GRADIENT)
def test_scoring_changes_nothing_in_the_model(name: str) -> None:
    model = small(name).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.score(random_images(3))
    assert model.training
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize("name", GRADIENT)
def test_each_optimizer_changes_only_its_own_networks(name: str) -> None:
    model = small(name)
    assert isinstance(model, GradientDetector)
    trainer = Trainer(model, InMemory(random_images(16)))
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


@pytest.mark.parametrize("name", GRADIENT)
def test_blank_and_single_colour_images_have_finite_scores(name: str) -> None:
    levels = torch.tensor([0, 128, 255], dtype=torch.uint8).reshape(3, 1, 1, 1)
    scores = small(name).score(levels.expand(3, 1, 32, 32).contiguous())
    assert np.isfinite(scores.score).all()


RESUMED = {
    **{name: (name, {}) for name in GRADIENT},
    "fanogan, three critic steps": ("fanogan", {"n_critic": 3, "encoder_share": 0.4}),
    "anogan, wgan-gp": ("anogan", {"adversarial": "wgan-gp", "n_critic": 2, "w_fm": 1.0}),
    "acgan, batch-norm": ("acgan", {"discriminator_norm": "batch"}),
    "vae, varied": ("vae", {"augment": {"flip_vertical": True, "rotate": 20, "brightness": 0.1}}),
    "skip_ganomaly, noise": ("skip_ganomaly", {"input_noise": 0.1}),
}


@pytest.mark.parametrize("case", RESUMED)
def test_a_run_resumed_at_any_step_ends_like_an_undisturbed_one(case: str, tmp_path: Path) -> None:
    name, keys = RESUMED[case]
    images = InMemory(random_images(24))

    def trainer() -> Trainer:
        model = small(name, epochs=2, precision="float32", **keys)
        assert isinstance(model, GradientDetector)
        return Trainer(model, images)

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
