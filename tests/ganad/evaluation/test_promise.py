"""What few calibration images can promise."""

import numpy as np
import pytest

from ganad.calibration import Calibration
from ganad.evaluation.promise import (
    false_positive_interval,
    images_needed,
    num_ranks,
    promise,
)


def test_103_calibration_images_promise_little_about_five_percent():
    interval = false_positive_interval(103, 0.05)
    assert (interval.low, interval.high) == pytest.approx((0.016, 0.0965), abs=5e-4)
    assert promise("knn-1", 103, 0.05) == (
        "knn-1: with 103 calibration images p < 0.05 flags between 1.6% and 9.6% of normal images "
        "(95 % interval)"
    )


def test_the_interval_is_that_of_fresh_normal_images():
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(2000):
        calibration = Calibration(rng.random(40), tuple(map(str, range(40))))
        threshold = np.sort(calibration.scores)[40 - num_ranks(40, 0.1)]
        assert (calibration.p_values(np.array([threshold + 1e-12])) < 0.1).all()
        rates.append(1 - threshold)
    interval = false_positive_interval(40, 0.1)
    held = np.mean([interval.low <= rate <= interval.high for rate in rates])
    assert 0.935 <= held <= 0.965


@pytest.mark.parametrize(("alpha", "needed"), [(0.05, 20), (0.01, 100), (0.3, 3), (1 / 3, 3)])
def test_fewer_images_flag_nothing_and_one_more_flags(alpha, needed):
    assert images_needed(alpha) == needed
    assert num_ranks(needed, alpha) == 1
    assert num_ranks(needed - 1, alpha) == 0
    assert 1 / needed >= alpha > 1 / (needed + 1)


def test_a_threshold_out_of_reach_says_how_many_images_it_takes():
    assert false_positive_interval(99, 0.01) is None
    assert promise("knn-1", 99, 0.01) == (
        "knn-1: p < 0.01 flags nothing, because 99 calibration images give no p-value below 0.01: "
        "hold out 100 or more"
    )
