"""Cuts of scores."""

import math

import numpy as np
import pytest

from ganad.calibration import Calibration
from ganad.errors import ConfigError
from ganad.evaluation.thresholds import Prices, cheapest, discoveries


def brute_force(p_values, rate):
    ordered = np.sort(p_values)
    passing = [p for k, p in enumerate(ordered, 1) if p <= rate * k / len(ordered)]
    return int((p_values <= max(passing)).sum()) if passing else 0


@pytest.mark.parametrize("seed", range(5))
def test_discoveries_are_those_of_benjamini_and_hochberg(seed):
    rng = np.random.default_rng(seed)
    p_values = np.concatenate([rng.integers(1, 201, 300), np.ones(30 * seed, int)]) / 201
    values, counts = np.unique(p_values, return_counts=True)
    found = discoveries(values, counts, 0.1)
    assert found.num_flagged == brute_force(p_values, 0.1)
    assert found.num == len(p_values)


def test_too_few_calibration_images_for_a_rate_say_how_many_it_takes():
    found = discoveries([1 / 104, 0.5], [2713, 997_287], 0.1)
    assert found.threshold is None
    text = found.sentence("knn-1", 103)
    assert text == (
        "knn-1: no image at a false discovery rate of 0.1: 2,713 of 1,000,000 images share the "
        "smallest p-value that 103 calibration images can give, 0.0096; it takes 3,685 or more to "
        "flag them"
    )
    assert discoveries([1 / 3686, 0.5], [2713, 997_287], 0.1).num_flagged == 2713
    assert discoveries([1 / 3685, 0.5], [2713, 997_287], 0.1).num_flagged == 0


def test_normal_images_alone_are_flagged_at_most_so_often():
    rng = np.random.default_rng(0)
    flagged = 0
    for _ in range(300):
        calibration = Calibration(rng.random(199), tuple(map(str, range(199))))
        values, counts = np.unique(calibration.p_values(rng.random(50)), return_counts=True)
        flagged += discoveries(values, counts, 0.2).num_flagged > 0
    assert flagged / 300 <= 0.2 + 3 * math.sqrt(0.2 * 0.8 / 300)


def test_a_rate_is_a_share():
    with pytest.raises(ConfigError, match=r"^--fdr 5 is not between 0 and 1"):
        discoveries([0.1], [1], 5)


def test_the_cheapest_threshold_against_brute_force():
    rng = np.random.default_rng(0)
    abnormal = rng.random(80) < 0.3
    scores = np.round(rng.normal(size=80) + abnormal, 1)
    prices = Prices.parse("1:5")
    found = cheapest(scores, abnormal, prices)
    costs = {cut: prices.of(scores >= cut, abnormal) for cut in [*np.unique(scores), math.inf]}
    assert found.cost == min(costs.values()) == costs[found.threshold]
    assert found.flag_nothing == pytest.approx(5 * abnormal.mean())
    assert found.flag_everything == pytest.approx((~abnormal).mean())
    assert found.cost_elsewhere >= found.cost


def test_a_threshold_chosen_on_noise_costs_more_elsewhere():
    """Scores that know nothing: what is saved on the images at hand is lost on others."""
    rng = np.random.default_rng(0)
    saved = []
    for seed in range(30):
        abnormal = np.arange(60) % 2 == 0
        found = cheapest(rng.normal(size=60), abnormal, Prices(1, 1), seed)
        saved.append((0.5 - found.cost, 0.5 - found.cost_elsewhere))
    assert np.mean(saved, axis=0)[0] > 0.03 > np.mean(saved, axis=0)[1]


def test_few_images_say_nothing_about_others():
    assert cheapest(np.arange(6.0), np.arange(6) > 2, Prices(1, 1)).cost_elsewhere is None


@pytest.mark.parametrize("typed", ["1", "1:2:3", "a:b", "0:1", "1:-1", "1:inf", "nan:1", ""])
def test_prices_are_two_positive_numbers(typed):
    with pytest.raises(ConfigError, match=f"^--cost {typed} is not FP:FN"):
        Prices.parse(typed)
