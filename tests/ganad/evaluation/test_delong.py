"""Intervals of an AUROC against brute force, resampling and published figures."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ganad.evaluation.delong import Placements, difference


def drawn(seed, num=60, share=0.4, shift=1.0):
    rng = np.random.default_rng(seed)
    abnormal = rng.random(num) < share
    abnormal[:2] = True, False
    return np.round(rng.normal(size=num) + shift * abnormal, 1), abnormal  # with ties


def test_placements_are_the_means_over_all_pairs():
    scores, abnormal = drawn(0)
    pairs = scores[abnormal][:, None] - scores[~abnormal][None, :]
    wins = (pairs > 0) + 0.5 * (pairs == 0)
    found = Placements.of(scores, abnormal)
    np.testing.assert_allclose(found.abnormal, wins.mean(1))
    np.testing.assert_allclose(found.normal, wins.mean(0))
    assert found.auroc == pytest.approx(roc_auc_score(abnormal, scores))
    expected = (
        wins.mean(1).var(ddof=1) / abnormal.sum() + wins.mean(0).var(ddof=1) / (~abnormal).sum()
    )
    assert found.variance == pytest.approx(expected)


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    """Normal scores of unit variance, one apart: the true AUROC is Phi(1 / sqrt(2)) = 0.760."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        abnormal = np.arange(80) < 30
        interval = Placements.of(rng.normal(size=80) + abnormal, abnormal).interval()
        held += interval.low <= 0.76025 <= interval.high
    assert 0.92 <= held / 400 <= 0.98


def test_a_difference_is_that_of_the_same_images():
    rng = np.random.default_rng(1)
    abnormal = np.arange(200) < 80
    common = rng.normal(size=200)
    better = common + 1.5 * abnormal + 0.1 * rng.normal(size=200)
    worse = common + 1.0 * abnormal + 0.1 * rng.normal(size=200)
    found = difference(Placements.of(better, abnormal), Placements.of(worse, abnormal))
    assert found.value == pytest.approx(
        roc_auc_score(abnormal, better) - roc_auc_score(abnormal, worse)
    )
    assert found.is_clear
    assert found.value > 0
    # Paired: narrower than two intervals that know nothing of each other.
    alone = [Placements.of(scores, abnormal).variance for scores in (better, worse)]
    half = (found.interval.high - found.interval.low) / 2
    assert half < 0.7 * 1.96 * np.sqrt(sum(alone))


def test_a_difference_to_itself_is_nothing():
    placements = Placements.of(*drawn(2))
    found = difference(placements, placements)
    assert (found.value, found.interval.low, found.interval.high) == (0, 0, 0)
    assert not found.is_clear


@pytest.mark.parametrize("sign", [1, -1])
def test_classes_that_do_not_overlap_are_not_certain(sign):
    abnormal = np.arange(30) < 10
    interval = Placements.of(sign * abnormal.astype(float) + np.linspace(0, 0.1, 30), abnormal)
    found = interval.interval()
    bound = 0.025 ** (1 / 10)
    expected = (bound, 1) if sign == 1 else (0, 1 - bound)
    assert (found.low, found.high) == pytest.approx(expected)


def test_equal_scores_are_chance_with_no_certainty():
    abnormal = np.arange(30) < 10
    placements = Placements.of(np.zeros(30), abnormal)
    assert placements.auroc == 0.5
    assert (placements.interval().low, placements.interval().high) == (0, 1)


@pytest.mark.parametrize("num_abnormal", [1, 29])
def test_one_image_of_a_class_says_little(num_abnormal):
    abnormal = np.arange(30) < num_abnormal
    scores = np.random.default_rng(0).normal(size=30)
    placements = Placements.of(scores, abnormal)
    interval = placements.interval()
    assert interval.high - interval.low > 0.9
    other = difference(placements, Placements.of(-scores, abnormal))
    assert other.interval.high - other.interval.low >= 1
