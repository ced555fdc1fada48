"""Variations of training images on the batch."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from ganad.batch.augment import augment
from ganad.batch.config import Augment
from ganad.batch.ranks import Ranks
from ganad.detectors import configure, create
from ganad.detectors.gradient import GradientDetector
from ganad.errors import ConfigError
from ganad.training.trainer import Trainer


def picture(num: int = 64, size: int = 16) -> torch.Tensor:
    """The same for all: black, with a white dot right of the centre."""
    images = torch.full((num, 1, size, size), -1.0)
    images[:, :, size // 2, -3] = 1.0
    return images


def varied(images: torch.Tensor, **keys: Any) -> torch.Tensor:
    torch.manual_seed(0)
    return augment(images, Augment(**keys), Ranks())


def dots(images: torch.Tensor) -> torch.Tensor:
    """Row and column of the dot of each image, from its light's centre: (n, 2)."""
    light = (images[:, 0] + 1) / (images[:, 0] + 1).sum((1, 2), keepdim=True)
    places = torch.arange(images.shape[-1], dtype=torch.float32)
    return torch.stack([(light.sum(2) * places).sum(1), (light.sum(1) * places).sum(1)], 1)


def test_nothing_is_on_by_default() -> None:
    images = torch.rand(4, 3, 8, 8) * 2 - 1
    state = torch.random.get_rng_state()
    assert augment(images, Augment(), Ranks()) is images
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize(("key", "axis"), [("flip_horizontal", 3), ("flip_vertical", 2)])
def test_about_half_of_the_images_are_mirrored_exactly(key: str, axis: int) -> None:
    images = torch.rand(400, 1, 8, 8) * 2 - 1
    found = varied(images, **{key: True})
    mirrored = (found == images.flip(axis)).flatten(1).all(1)
    assert ((found == images).flatten(1).all(1) ^ mirrored).all()
    assert 150 < mirrored.sum() < 250  # five standard deviations


def test_a_turn_keeps_the_distance_from_the_centre() -> None:
    places = dots(varied(picture(), rotate=30)) - 7.5
    start = dots(picture(1))[0] - 7.5
    torch.testing.assert_close(
        places.norm(dim=1), start.norm().expand(64), atol=0.2, rtol=0, check_stride=False
    )
    angles = torch.rad2deg(torch.atan2(places[:, 0], places[:, 1]) - math.atan2(start[0], start[1]))
    assert -32 < angles.min() < -20
    assert 20 < angles.max() < 32


def test_a_shift_moves_by_its_share_at_the_most_and_in_both_directions() -> None:
    images = torch.full((64, 1, 20, 20), -1.0)
    images[:, :, 10, 10] = 1.0
    moved = dots(varied(images, shift=0.2)) - 10
    assert (moved.abs() <= 0.2 * 20 + 1e-3).all()
    for direction in moved.unbind(1):
        assert direction.min() < -3
        assert direction.max() > 3


def test_edges_are_filled_by_what_lies_beside_them() -> None:
    white = torch.ones(8, 3, 16, 16)
    torch.testing.assert_close(varied(white, rotate=45, shift=0.3), white)


def test_brightness_changes_an_image_as_a_whole_within_the_range() -> None:
    found = varied(torch.zeros(200, 1, 4, 4), brightness=0.1)
    assert (found.flatten(1).std(1) == 0).all()
    assert found.abs().max() <= 0.2
    assert found.min() < -0.15
    assert found.max() > 0.15
    assert varied(torch.ones(200, 1, 4, 4), brightness=1.0).max() == 1.0


def test_each_image_is_varied_by_itself() -> None:
    found = varied(picture(), rotate=30, shift=0.1, brightness=0.1)
    assert len(torch.unique(found.flatten(1), dim=0)) == 64


def test_training_sees_varied_images_and_scoring_does_not() -> None:
    class Images:
        def __len__(self) -> int:
            return 16

        def take(self, positions: np.ndarray) -> np.ndarray:
            image = np.zeros((1, 16, 16), np.uint8)
            image[:, :, :5] = 255
            return np.repeat(image[None], len(positions), 0)

    values = {"image_size": 16, "channels": 1, "width": 4, "latent": 4, "batch_size": 8}
    keys = {**values, "epochs": 1, "augment": {"flip_horizontal": True}}
    model = create("autoencoder", configure("autoencoder", keys))
    assert isinstance(model, GradientDetector)
    seen = []
    step = model.training_step

    def watched(images: torch.Tensor, one: Any) -> dict[str, torch.Tensor]:
        seen.append(images)
        return step(images, one)

    model.training_step = watched  # type: ignore[method-assign]
    list(Trainer(model, Images()).run())
    on_the_left = [bool(image[0, 0, 0] > 0) for batch in seen for image in batch]
    assert 0 < sum(on_the_left) < 16
    image = torch.from_numpy(Images().take(np.zeros(8, int)))
    assert len(set(model.score(image).score.tolist())) == 1


def test_wrong_keys_are_told_in_words() -> None:
    with pytest.raises(ConfigError, match=r"^augment.rotate=200 cannot be used for vae"):
        configure("vae", {"augment": {"rotate": 200}})
    with pytest.raises(ConfigError, match=r"augment.flip is no key of vae: did you mean augment"):
        configure("vae", {"augment": {"flip": True}})
