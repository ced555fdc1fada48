"""Which rows a training of a crossed calibration learns from."""

import numpy as np
import pytest
import torch
from torch import Tensor

from ganad.archive.splits import fold_names
from ganad.detectors.places import TermScale
from ganad.images.protocol import PIECE, Subset, pieces
from ganad.images.shards import Shards
from ganad.training.folds import FoldResult, chosen
from ganad.training.held_out import HeldOut

PARTS = ["fold-0", "fold-1", "fold-0", "fold-2"]


@pytest.mark.parametrize(
    ("fold", "train", "calibration"),
    [("fold-0", [1, 3], [0, 2]), ("fold-2", [0, 1, 2], [3]), (None, [0, 1, 2, 3], [])],
)
def test_a_training_leaves_out_its_fold(
    fold: str | None, train: list[int], calibration: list[int]
) -> None:
    expected = {"train": train, "calibration": calibration, "validation": []}
    for subset, rows in expected.items():
        assert np.flatnonzero(chosen(PARTS, subset, 3, fold)).tolist() == rows


def test_without_folds_subsets_are_what_the_column_says() -> None:
    parts = ["train", "calibration", "validation", "train"]
    found = [chosen(parts, one, 0, None).tolist() for one in ("train", "validation")]
    assert found == [[True, False, False, True], [False, False, True, False]]
    assert fold_names(0) == []


def test_events_name_the_fold() -> None:
    history = [{"epoch": 1, "step": 5}, {"step": 6, "event": "collapse: of all"}]
    result = FoldResult("fold-1", HeldOut(), None, history)
    assert result.events == [{"step": 6, "event": "without fold-1: collapse: of all"}]


def test_scales_are_averaged() -> None:
    def scale(mean: float, spread: float) -> TermScale:
        made = TermScale(["a"], ["a"])
        made.mean, made.spread = _double(mean), _double(spread)
        return made

    mine = TermScale(["a"], ["a"])
    mine.average([scale(1, 2), scale(3, 6)])
    assert (mine.mean.item(), mine.spread.item()) == (2, 4)


def _double(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


@pytest.mark.parametrize(("side", "at_once"), [(32, PIECE), (2048, 10), (16_384, 1)])
def test_large_images_are_taken_in_smaller_pieces(side: int, at_once: int) -> None:
    image = np.lib.stride_tricks.as_strided(
        np.zeros(1, np.uint8), (1100, 3, side, side), (0, 0, 0, 0)
    )
    images = Subset(Shards([image]), np.arange(1000))
    taken = [np.arange(1000)[some] for some in pieces(images, 1000)]
    assert max(map(len, taken)) == at_once
    assert np.concatenate(taken).tolist() == list(range(1000))
