"""How sure an AUROC is, and a difference of two on the same images.

The AUROC is the mean, over all pairs, of 1 where the abnormal image has the higher score and 1/2
where both are equal. Its variance follows from each image's own mean over its pairs (DeLong, DeLong
and Clarke-Pearson, Biometrics 1988). These means come from ranks, in n log n steps (Sun and Xu,
IEEE Signal Processing Letters 2014).
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
    """low..high holds the true value CONFIDENCE of the times."""

    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """One AUROC minus another on the same images."""

    value: float
    interval: Interval

    @property
    def is_clear(self) -> bool:
        """True if the interval leaves out zero."""
        return self.interval.low > 0 or self.interval.high < 0


@dataclass(frozen=True, eq=False)
class Placements:
    """For each abnormal image the share of normal ones below it: float64 (m,); for each normal
    image the share of abnormal ones above it: float64 (n,)."""

    abnormal: np.ndarray
    normal: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, abnormal: np.ndarray) -> Placements:
        """scores float64 (k,), abnormal bool (k,), with images of both classes."""
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
        """Of the AUROC; nan with a single image of a class."""
        return _mean_variance(self.abnormal) + _mean_variance(self.normal)

    def interval(self) -> Interval:
        """Symmetric on the logit scale, so that it stays within 0..1.

        Where the classes do not overlap the variance is 0 and says nothing. The bound is then that
        of as many independent pairs as the smaller class has images, all in the right order
        (Clopper and Pearson 1934), and 0..1 for the side that is open.
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
    """The AUROC of one minus that of other, both of the same images in the same order."""
    value = one.auroc - other.auroc
    variance = _mean_variance(one.abnormal - other.abnormal) + _mean_variance(
        one.normal - other.normal
    )
    reach = float(stats.norm.ppf((1 + CONFIDENCE) / 2)) * math.sqrt(variance)
    if math.isnan(reach):  # a single image of a class
        reach = 1.0
    return Difference(value, Interval(max(-1.0, value - reach), min(1.0, value + reach)))


def _mean_variance(values: np.ndarray) -> float:
    """The variance of the values' mean; nan for one value."""
    return float(np.var(values, ddof=1) / len(values)) if len(values) > 1 else math.nan


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0
