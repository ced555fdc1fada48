"""Windows of images: what they cover, and how their scores and maps come together."""

import numpy as np
import pytest
import torch

from ganad.batch.config import PatchConfig, corners
from ganad.batch.patches import cut, draw, stitch, weights


def positions(image_size: int, **keys: int) -> list[int]:
    return [left for top, left in corners(image_size, PatchConfig(**keys)) if top == 0]


def test_windows_lie_side_by_side_and_the_last_ends_at_the_edge() -> None:
    assert positions(64, size=16) == [0, 16, 32, 48]
    assert positions(60, size=16) == [0, 16, 32, 44]
    assert positions(64, size=32, stride=8) == [0, 8, 16, 24, 32]
    assert positions(16, size=16) == [0]
    assert len(corners(60, PatchConfig(size=16))) == 16


@pytest.mark.parametrize("image_size", [48, 50, 63])
@pytest.mark.parametrize("stride", [None, 5, 16])
def test_stitching_undoes_cutting(image_size: int, stride: int | None) -> None:
    patch = PatchConfig(size=16, stride=stride)
    images = torch.rand(3, 2, image_size, image_size, dtype=torch.float64)
    windows = cut(images, patch)
    assert windows.shape == (3 * len(corners(image_size, patch)), 2, 16, 16)
    torch.testing.assert_close(stitch(windows, image_size, patch), images)


def test_windows_of_an_image_follow_one_another() -> None:
    images = torch.arange(2).reshape(2, 1, 1, 1).expand(2, 1, 32, 32)
    assert cut(images, PatchConfig(size=16)).amax((1, 2, 3)).tolist() == [0] * 4 + [1] * 4


def test_overlapping_windows_are_averaged() -> None:
    patch = PatchConfig(size=16, stride=8)
    levels = torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 1, 16, 16)
    (image,) = stitch(levels, 24, patch)
    assert image[0, 0, 0] == 0
    assert image[0, 12, 12] == (0 + 1 + 2 + 3) / 4
    assert image[0, 0, 12] == (0 + 1) / 2


def test_shares_of_the_worst_windows() -> None:
    scores = np.array([[1.0, 5.0, 3.0, 4.0], [2.0, 2.0, 2.0, 2.0]])
    assert weights(scores, PatchConfig(size=8)).tolist() == [[0, 1, 0, 0], [1, 0, 0, 0]]
    top = weights(scores, PatchConfig(size=8, pool="top_k", top_k=2))
    assert top.tolist() == [[0, 0.5, 0, 0.5], [0.5, 0.5, 0, 0]]
    assert weights(scores, PatchConfig(size=8, pool="mean")).tolist() == [[0.25] * 4] * 2


def test_windows_are_drawn_from_the_whole_image() -> None:
    drawn = draw(np.random.default_rng(0), 4000, 20, PatchConfig(size=16))
    for side in drawn.T:
        assert set(side.tolist()) == {0, 1, 2, 3, 4}
