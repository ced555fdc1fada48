"""Guarantees on the false-positive rate of p < alpha, given n calibration images.

Every p-value is k / (n + 1) for an integer k. p < a therefore flags the k = ceil(a (n + 1)) - 1
highest of n + 1 ranks, which is nothing if n + 1 is at most 1 / a.
"""

from __future__ import annotations

import math

from scipy import stats

from ganad.evaluation.delong import CONFIDENCE, Interval

_ROUNDING = 1e-9
"""Undoes the rounding of products such as 100 * 0.29."""


def num_ranks(num_calibration: int, alpha: float) -> int:
    """Number of the p-values 1 / (n + 1), 2 / (n + 1) … below alpha."""
    return max(0, math.ceil(alpha * (num_calibration + 1) - _ROUNDING) - 1)


def images_needed(alpha: float) -> int:
    """Minimum number of calibration images for a p-value below alpha."""
    return math.floor(1 / alpha + _ROUNDING)


def false_positive_interval(num_calibration: int, alpha: float) -> Interval | None:
    """95 % interval of the fraction of normal images that p < alpha flags with one given
    calibration set; None if nothing can be flagged.

    Over random calibration sets of n images, the fraction is distributed as Beta(k, n + 1 - k),
    because the threshold is an order statistic (Vovk 2012, Conditional validity of inductive
    conformal predictors).
    """
    k = num_ranks(num_calibration, alpha)
    if k == 0:
        return None
    tail = (1 - CONFIDENCE) / 2
    low, high = stats.beta.ppf([tail, 1 - tail], k, num_calibration + 1 - k)
    return Interval(float(low), float(high))


def promise(model: str, num_calibration: int, alpha: float) -> str:
    """One sentence on what p < alpha means for a model with num_calibration calibration images."""
    interval = false_positive_interval(num_calibration, alpha)
    if interval is None:
        return (
            f"{model}: p < {alpha:g} flags nothing, because {num_calibration:,} calibration images "
            f"give no p-value below {1 / (num_calibration + 1):.2g}: hold out "
            f"{images_needed(alpha):,} or more"
        )
    return (
        f"{model}: with {num_calibration:,} calibration images p < {alpha:g} flags between "
        f"{interval.low:.1%} and {interval.high:.1%} of normal images (95 % interval)"
    )
