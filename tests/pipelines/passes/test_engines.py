"""What --engine takes, and what is said of the engines that were tried."""

import pytest

from ganad.errors import ConfigError
from pipelines.cluster.connection import Resources
from pipelines.passes.engines import check_engine, described, gain

SCORES = {"n": 256, "spearman": 0.9999999, "p_difference": 0.004, "score_difference": 1e-6}
EAGER = {"engine": "eager", "images_per_s": 50.0, "passed": True}


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({}, "50 images/s"),
        (
            {"agreement": SCORES},
            "50 images/s; scores of 256 images have a rank correlation of 1.000000, p-values "
            "differ by up to 0.004: passed",
        ),
        (
            {"agreement": SCORES | {"p_difference": None}},
            "50 images/s; scores of 256 images have a rank correlation of 1.000000: passed",
        ),
        (
            {"agreement": {"n": 3, "spearman": None, "p_difference": None}, "passed": False},
            "50 images/s; 3 images are too few to compare: not passed",
        ),
        (
            {"agreement": {"n": 32, "difference": 2e-5}},
            "50 images/s; features of 32 images differ by 2e-05 of a spread: passed",
        ),
        (
            {"agreement": {"n": 32, "difference": None}, "passed": False},
            "50 images/s; features are not finite: not passed",
        ),
        ({"refused": "alad cannot be compiled", "passed": False}, "alad cannot be compiled"),
    ],
)
def test_trials_are_told_in_words(facts, said):
    assert described({**EAGER, **facts}) == said


def test_the_gain_is_beside_eager():
    quick = {"engine": "openvino", "images_per_s": 125.0, "passed": True}
    assert gain("openvino", [EAGER, quick]) == ", 2.5 times as fast as eager"
    assert gain("openvino", [EAGER]) == ""


def test_engines_that_a_job_cannot_have_are_named():
    check_engine("auto", Resources(1, 1, 1))
    check_engine("openvino", Resources(2, 0, 1))
    with pytest.raises(ConfigError, match="--engine turbo: use one of auto, eager"):
        check_engine("turbo")
    with pytest.raises(ConfigError, match="--engine openvino runs on processors: leave it out"):
        check_engine("openvino", Resources(1, 1, 1))
