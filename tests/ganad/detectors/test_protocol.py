"""What must hold for every detector, tried on all that are trained by gradient."""

from typing import Any

import numpy as np
import pytest
import torch

from ganad.detectors import DETECTORS, configure, create
from ganad.detectors.base import Detector, GradientDetector
from ganad.training import Trainer

SMALL: dict[str, dict[str, Any]] = {
    "ganomaly": {"width": 8, "latent": 10},
    "autoencoder": {"width": 8, "latent": 10},
    "vae": {"width": 8, "latent": 10},
    "egbad": {"width": 4, "features": 32, "latent": 10},
    "alad": {"width": 8, "latent": 10},
    "skip_ganomaly": {"width": 8, "latent": 10},
    "pixelcnn": {"layers": 1, "width": 6, "levels": 8},
    "pixelrnn": {"layers": 1, "hidden": 6, "head_width": 6, "levels": 8},
    "acgan": {"latent": 10, "generator_width": 8, "discriminator_width": 4},
    "anogan": {"width": 8, "latent": 10, "search_steps": 5},
    "fanogan": {"width": 4, "latent": 10, "n_critic": 1},
}
GRADIENT = [name for name, kind in DETECTORS.items() if issubclass(kind, GradientDetector)]


def small(name: str, **keys: Any) -> Detector[Any]:
    values = {"image_size": 32, "channels": 1, "batch_size": 8, **SMALL.get(name, {}), **keys}
    return create(name, configure(name, values))


def random_images(num: int, channels: int = 1, size: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    shape = (num, channels, size, size)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


class InMemory:
    """Training images from a tensor."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images.numpy()

    def __len__(self) -> int:
        return len(self.images)

    def take(self, positions: np.ndarray) -> np.ndarray:
        return self.images[positions]


def test_every_gradient_detector_is_tried_at_a_small_size() -> None:
    assert set(SMALL) == set(GRADIENT)


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


@pytest.mark.parametrize("name", GRADIENT)
def test_a_run_resumed_at_any_step_ends_like_an_undisturbed_one(name: str) -> None:
    images = InMemory(random_images(16))

    def trainer() -> Trainer:
        model = small(name, epochs=2, precision="float32")
        assert isinstance(model, GradientDetector)
        return Trainer(model, images)

    whole = trainer()
    list(whole.run())
    first = trainer()
    steps = first.run()
    for _ in range(3):
        next(steps)
    saved = {key: value for key, value in first.state().items()}
    second = trainer()
    second.restore(saved)
    list(second.run())
    for key, value in whole.detector.state_dict().items():
        assert torch.equal(value, second.detector.state_dict()[key]), key
