"""Another engine may score only where its scores mean the same p-values."""

import numpy as np
import pytest

from ganad.calibration import Calibration
from ganad.engines.gate import agreement

RNG = np.random.default_rng(0)
NORMAL = RNG.normal(size=99)
SCORES = RNG.normal(size=200)
CALIBRATION = Calibration(NORMAL, tuple(map(str, range(99))))


def test_rounding_passes():
    found = agreement(SCORES, SCORES * (1 + 1e-7), CALIBRATION)
    assert found.passed
    assert found.p_difference <= 1 / 100 + 1e-12
    assert found.score_difference < 1e-6


def test_scores_that_move_past_two_calibration_images_fail():
    moved = SCORES.copy()
    moved[0] = np.sort(NORMAL)[50]
    first = SCORES.copy()
    first[0] = np.sort(NORMAL)[47]
    found = agreement(first, moved, CALIBRATION)
    assert found.p_difference == pytest.approx(3 / 100)
    assert not found.passed


def test_a_shift_of_all_scores_keeps_ranks_and_fails():
    found = agreement(SCORES, SCORES + 0.5, CALIBRATION)
    assert found.spearman == pytest.approx(1)
    assert not found.passed


def test_without_calibration_ranks_decide():
    assert agreement(SCORES, SCORES * 2, None).passed
    assert not agreement(SCORES, RNG.permutation(SCORES), None).passed


def test_an_image_that_loses_its_score_fails():
    lost = SCORES.copy()
    lost[3] = np.nan
    assert not agreement(SCORES, lost, CALIBRATION).passed


def test_few_images_show_nothing():
    assert not agreement(SCORES[:5], SCORES[:5], CALIBRATION).passed
