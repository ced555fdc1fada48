"""The augmented fit of detectors by statistics."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from ganad.batch.augment_fit import passes, vary
from ganad.batch.config import AugmentedFit
from ganad.detectors import configure, create
from ganad.detectors.base import StatisticsDetector


def pictures(num: int, size: int = 32, channels: int = 3) -> np.ndarray:
    """Smooth colours, uint8 (n, c, s, s)."""
    rng = np.random.default_rng(0)
    noise = ndimage.gaussian_filter(rng.normal(0, 1, (num, channels, size, size)), (0, 0, 3, 3))
    return np.clip(128 + 400 * noise, 0, 255).astype(np.uint8)


def detector(name: str = "gaussian", **keys: Any) -> StatisticsDetector[Any, Any]:
    values = {"image_size": 32, "backbone": {"name": "test_efficientnet", "weights": "random"}}
    made = create(name, configure(name, {**values, **keys}))
    assert isinstance(made, StatisticsDetector)
    return made


def test_without_repeats_images_are_left_as_they_are() -> None:
    images = torch.from_numpy(pictures(3))
    (only,) = passes(images, AugmentedFit(), 0)
    assert only is images


def test_what_becomes_of_an_image_depends_on_its_pixels_seed_and_repetition_alone() -> None:
    images = torch.from_numpy(pictures(12))
    how = AugmentedFit(repeats=3)
    together = [batch.numpy() for batch in passes(images, how, 0)]
    assert len(together) == 3
    alone = [batch.numpy() for batch in passes(images[5:6], how, 0)]
    for whole, one in zip(together, alone, strict=True):
        np.testing.assert_array_equal(whole[5], one[0])
    assert any((a != b).any() for a, b in zip(together, together[1:], strict=False))
    other = [batch.numpy() for batch in passes(images, how, 1)]
    assert any((a != b).any() for a, b in zip(together, other, strict=True))


@pytest.mark.parametrize("channels", [1, 3])
def test_about_half_of_the_images_are_varied(channels: int) -> None:
    images = pictures(20, channels=channels)
    changed = [
        (vary(image, AugmentedFit(repeats=1), 0, number) != image).any()
        for number in range(10)
        for image in images
    ]
    # Of the half that goes through the pipeline, .8·.7·.7·.8·.5·.5·.8 = 6 % comes out unchanged.
    assert 0.35 < np.mean(changed) < 0.6


def test_every_ban_bans() -> None:
    """A bright left edge on grey goes to the right, up and down only where that is allowed."""
    image = np.full((1, 32, 32), 90, np.uint8)
    image[:, :, :8] = 160

    def sides(**keys: Any) -> set[str]:
        found = set()
        for number in range(300):
            new = vary(image, AugmentedFit(repeats=1, **keys), 0, number)[0].astype(float)
            means = {
                "left": new[8:-8, :6].mean(),
                "right": new[8:-8, -6:].mean(),
                "top": new[:6, 8:-8].mean(),
                "bottom": new[-6:, 8:-8].mean(),
            }
            found.add(max(means, key=lambda side: means[side]))
        return found

    still = {"move_edges": False}
    assert sides(flip=False, quarter_turns=False, **still) == {"left"}
    assert sides(flip=True, quarter_turns=False, **still) == {"left", "right"}
    assert sides(flip=False, quarter_turns=True, **still) == {"left", "right", "top", "bottom"}
    assert sides(flip=False, quarter_turns=False, rotate=15) == {"left"}


def test_turns_stay_within_the_limit_and_keep_the_picture_in_its_place() -> None:
    line = np.zeros((1, 65, 65), np.uint8)
    line[:, 31:34, :] = 200
    angles = []
    for number in range(400):
        how = AugmentedFit(repeats=1, flip=False, quarter_turns=False, rotate=15)
        new = vary(line, how, 0, number)[0].astype(float)
        weights = new[:, 5:-5] ** 2
        rows = (weights * np.arange(65)[:, None]).sum(0) / weights.sum(0)
        angles.append(np.degrees(np.arctan(np.polyfit(np.arange(55), rows, 1)[0])))
        assert abs(rows.mean() - 32) < 5
    assert np.abs(angles).max() < 16
    assert np.abs(angles).max() > 8


def test_a_fit_counts_every_repetition_and_does_not_depend_on_the_cut() -> None:
    images = torch.from_numpy(pictures(24))
    whole, pieces, plain = (detector(augment={"repeats": n}) for n in (4, 4, 0))
    start = whole.begin(images)
    facts = whole.finish(whole.observe(start, images))
    assert facts["num_images"] == 96
    parts = [pieces.observe(start, images[cut]) for cut in (slice(0, 5), slice(5, 24))]
    pieces.finish(pieces.merge(parts))
    np.testing.assert_allclose(pieces.score(images).score, whole.score(images).score, rtol=1e-5)
    plain.finish(plain.observe(start, images))
    assert (np.abs(plain.score(images).score / whole.score(images).score - 1) > 0.02).any()


@pytest.mark.parametrize("name", ["knn", "ocsvm"])
def test_detectors_that_keep_features_keep_those_of_varied_images(name: str) -> None:
    images = torch.from_numpy(pictures(12))
    made = detector(name, augment={"repeats": 3})
    facts = made.finish(made.observe(made.begin(images), images))
    assert facts["num_images"] == 36
