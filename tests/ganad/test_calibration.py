import warnings

import numpy as np
import pytest

from ganad.calibration import Calibration
from ganad.errors import TrainingError


def calibrate(scores):
    return Calibration(np.asarray(scores, float), tuple(f"id{i:04d}" for i in range(len(scores))))


def test_p_values_by_hand():
    calibration = calibrate([3.0, 1.0, 2.0, 2.0])
    scores = np.array([0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 9.0, np.inf, -np.inf, np.nan])
    expected = np.array([5, 5, 4, 4, 2, 2, 1, 1, 5, np.nan]) / 5
    np.testing.assert_array_equal(calibration.p_values(scores), expected)
    assert calibration.p_values(scores).dtype == np.float64


def test_threshold_is_the_order_statistic():
    calibration = calibrate(np.arange(1, 100))  # n = 99
    assert calibration.threshold(0.05) == 95
    assert calibration.threshold(0.01) == 99
    assert calibration.threshold(0.29) == 71  # 100 * 0.29 is 28.999999999999996
    assert calibration.threshold(0.999) == 1


@pytest.mark.parametrize("n", [1, 7, 99, 100, 333])
@pytest.mark.parametrize("rate", [0.01, 0.05, 0.1, 0.29, 0.5])
def test_score_above_threshold_means_p_value_at_most_the_rate(n, rate):
    rng = np.random.default_rng(n)
    calibration = calibrate(np.round(rng.normal(size=n), 1))  # rounded: ties
    scores = np.concatenate([calibration.scores, rng.normal(size=200).round(1), [99.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        threshold = calibration.threshold(rate)
    np.testing.assert_array_equal(scores > threshold, calibration.p_values(scores) <= rate + 1e-12)


def test_threshold_beyond_the_calibration_is_infinite_and_said():
    with pytest.warns(UserWarning, match="9 calibration images cannot show"):
        assert calibrate(range(9)).threshold(0.05) == np.inf


@pytest.mark.parametrize("draw", ["normal", "cauchy", "few_values"])
def test_p_value_flags_at_most_its_share_of_fresh_normals(draw):
    """Averaged over calibrations: for one calibration the rate itself is random, for all it is
    at most a, whatever the distribution of scores and however many are equal."""
    rng = np.random.default_rng(0)
    draws = {
        "normal": lambda n: rng.normal(size=n),
        "cauchy": lambda n: rng.standard_cauchy(n),
        "few_values": lambda n: rng.integers(0, 4, n).astype(float),
    }
    num_repeats, num_fresh, n = 400, 50, 60
    for rate in (0.02, 0.05, 0.2, 0.5):
        flagged = np.array(
            [
                np.mean(calibrate(draws[draw](n)).p_values(draws[draw](num_fresh)) <= rate)
                for _ in range(num_repeats)
            ]
        )
        slack = 4 * flagged.std() / np.sqrt(num_repeats)
        assert flagged.mean() <= rate + slack
        if draw != "few_values":
            assert flagged.mean() >= np.floor((n + 1) * rate) / (n + 1) - slack  # nor far below


def test_order_of_images_does_not_matter():
    scores, ids = np.array([2.0, 1.0, 2.0]), ("b", "c", "a")
    first, second = Calibration(scores, ids), Calibration(scores[::-1], ids[::-1])
    assert first.ids == second.ids == ("c", "a", "b")
    np.testing.assert_array_equal(first.scores, [1, 2, 2])


def test_table_round_trip():
    calibration = calibrate([3.0, 1.0, 2.0])
    again = Calibration.from_table(calibration.to_table())
    assert again.ids == calibration.ids
    np.testing.assert_array_equal(again.scores, calibration.scores)
    with pytest.raises(ValueError, match="lacks the column score"):
        Calibration.from_table(calibration.to_table().drop_columns("score"))


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([], "no images"),
        ([1.0, np.nan, np.inf], "NaN or infinite for 2 of 3"),
        ([0.5, 0.5, 0.5], "all 3 images are 0.5"),
    ],
)
def test_useless_scores_are_refused(scores, message):
    with pytest.raises(TrainingError, match=message):
        calibrate(scores)


def test_scores_cannot_be_changed_afterwards():
    source = np.array([1.0, 2.0])
    calibration = calibrate(source)
    source[0] = 5
    np.testing.assert_array_equal(calibration.scores, [1, 2])
    with pytest.raises(ValueError, match="read-only"):
        calibration.scores[0] = 5


def test_notes_speak_of_few_images_and_of_equal_scores():
    assert calibrate(np.arange(200)).notes() == []
    assert "calibrated on 50 images: no p-value is below 0.02" in calibrate(range(50)).notes()[0]
    assert calibrate([0.0] * 150 + [1.0] * 150).notes() == [
        "only 2 of 300 calibration scores differ, so p-values are coarse"
    ]


def test_one_image_is_enough_to_be_honest():
    np.testing.assert_array_equal(calibrate([1.0]).p_values(np.array([0.0, 2.0])), [1.0, 0.5])
