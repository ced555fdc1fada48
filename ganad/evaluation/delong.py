"""Confidence intervals of an AUROC and of the difference of two AUROCs on the same images.

The AUROC is the mean over all pairs of a normal and an abnormal image of 1 if the abnormal one has
the higher score and 1/2 if both scores are equal. Its variance follows from each image's mean over
its pairs (DeLong, DeLong and Clarke-Pearson, Biometrics 1988). The means are computed from ranks in
O(n log n) (Sun and Xu, IEEE Signal Processing Letters 2014).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
CHANCE_AUROC = 0.5


@dataclass(frozen=True)
class Interval:
    """A confidence interval at level CONFIDENCE."""

    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """One AUROC minus another on the same images."""

    value: float
    interval: Interval

    @property
    def is_clear(self) -> bool:
        """True if the interval excludes zero."""
        return self.interval.low > 0 or self.interval.high < 0


@dataclass(frozen=True, eq=False)
class Placements:
    """abnormal: float64 (m,), for each abnormal image the fraction of normal ones with a lower
    score. normal: float64 (n,), for each normal image the fraction of abnormal ones with a higher
    score. Ties count 1/2."""

    abnormal: np.ndarray
    normal: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, abnormal: np.ndarray) -> Placements:
        """Compute the placements. scores: float64 (k,); abnormal: bool (k,), with both classes."""
        positive, negative = scores[abnormal], scores[~abnormal]
        m, n = len(positive), len(negative)
        ranks = stats.rankdata(np.concatenate([positive, negative]))
        return cls(
            (ranks[:m] - stats.rankdata(positive)) / n,
            1 - (ranks[m:] - stats.rankdata(negative)) / m,
        )

    @property
    def auroc(self) -> float:
        return float(self.abnormal.mean())

    @property
    def variance(self) -> float:
        """Variance of the AUROC; NaN if a class has a single image."""
        return _mean_variance(self.abnormal) + _mean_variance(self.normal)

    def interval(self) -> Interval:
        """Confidence interval, symmetric on the logit scale, so that it stays within 0..1.

        If the classes do not overlap, the variance is 0 and cannot be used. The bound is then the
        Clopper-Pearson (1934) bound for as many independent pairs as the smaller class has images,
        all in the right order.
        """
        auroc, variance = self.auroc, self.variance
        tail = (1 - CONFIDENCE) / 2
        if not variance > 0 or auroc in (0.0, 1.0):
            bound = float(tail ** (1 / min(len(self.abnormal), len(self.normal))))
            if auroc == 1.0:
                return Interval(bound, 1.0)
            return Interval(0.0, 1 - bound if auroc == 0.0 else 1.0)
        reach = stats.norm.ppf(1 - tail) * math.sqrt(variance) / (auroc * (1 - auroc))
        logit = math.log(auroc / (1 - auroc))
        return Interval(_logistic(logit - reach), _logistic(logit + reach))


def difference(one: Placements, other: Placements) -> Difference:
    """AUROC of one minus AUROC of other, on the same images in the same order."""
    value = one.auroc - other.auroc
    variance = _mean_variance(one.abnormal - other.abnormal) + _mean_variance(
        one.normal - other.normal
    )
    reach = float(stats.norm.ppf((1 + CONFIDENCE) / 2)) * math.sqrt(variance)
    if math.isnan(reach):  # a single image of a class
        reach = 1.0
    return Difference(value, Interval(max(-1.0, value - reach), min(1.0, value + reach)))


def _mean_variance(values: np.ndarray) -> float:
    """Variance of the mean of the values; NaN for a single value."""
    return float(np.var(values, ddof=1) / len(values)) if len(values) > 1 else math.nan


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0
