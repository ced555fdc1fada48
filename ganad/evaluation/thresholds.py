"""Chooses thresholds: by a false discovery rate without labels, or by costs with labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ganad.errors import ConfigError

_ROUNDING = 1e-9
"""Undoes the rounding of products such as 100 * 0.29."""
_FOLDS = 5


@dataclass(frozen=True)
class Discoveries:
    """The images of one model that a false discovery rate flags."""

    rate: float
    num: int
    num_flagged: int
    threshold: float | None
    """Images with p_value <= threshold are flagged; None flags no image."""
    smallest: float | None = None
    """The smallest p-value of the table."""
    num_smallest: int = 0

    def sentence(self, model: str, num_calibration: int | None) -> str:
        """The result as a sentence, with a remedy if nothing can be flagged."""
        if self.threshold is not None:
            return (
                f"{model}: {self.num_flagged:,} of {self.num:,} images at a false discovery rate "
                f"of {self.rate:g}, those with p ≤ {self.threshold:.3g}"
            )
        text = f"{model}: no image at a false discovery rate of {self.rate:g}"
        if self.smallest is None:
            return f"{text}, because it has no p-values"
        needed = math.ceil(self.num / (self.rate * self.num_smallest) - 1)
        if num_calibration is None or self.smallest > 1.5 / (num_calibration + 1):
            return f"{text}; the smallest p-value is {self.smallest:.2g}"
        return (
            f"{text}: {self.num_smallest:,} of {self.num:,} images share the smallest p-value that "
            f"{num_calibration:,} calibration images can give, {self.smallest:.2g}; it takes "
            f"{needed:,} or more to flag them"
        )


def discoveries(p_values: Sequence[float], counts: Sequence[int], rate: float) -> Discoveries:
    """Apply the Benjamini-Hochberg procedure (1995) to the p-values of a table.

    p_values: distinct values, ascending. counts: images with each. Conformal p-values from one
    calibration set are positively dependent, under which the procedure controls the rate (Bates et
    al. 2023, Testing for outliers with conformal p-values).
    """
    if not 0 < rate < 1:
        raise ConfigError(f"--fdr {rate:g} is not between 0 and 1: give a rate such as 0.1")
    values, sizes = np.asarray(p_values, np.float64), np.asarray(counts, np.int64)
    if len(values) == 0:
        return Discoveries(rate, 0, 0, None)
    at_most = np.cumsum(sizes)
    num = int(at_most[-1])
    good = np.flatnonzero(values <= rate * at_most / num * (1 + _ROUNDING))
    if len(good) == 0:
        return Discoveries(rate, num, 0, None, float(values[0]), int(sizes[0]))
    last = int(good[-1])
    return Discoveries(rate, num, int(at_most[last]), float(values[last]))


@dataclass(frozen=True)
class Prices:
    """Costs of a false alarm and of a missed defect, in the same unit."""

    false_positive: float
    false_negative: float

    @classmethod
    def parse(cls, typed: str) -> Prices:
        """Parse FP:FN, such as 1:20. Raises ConfigError."""
        parts = typed.split(":")
        try:
            prices = cls(*map(float, parts))
        except (TypeError, ValueError):
            prices = cls(0, 0)
        if not (0 < prices.false_positive < math.inf and 0 < prices.false_negative < math.inf):
            raise ConfigError(
                f"--cost {typed} is not FP:FN: give the costs of a false alarm and of a missed "
                f"defect, such as 1:20"
            )
        return prices

    def of(self, flags: np.ndarray, abnormal: np.ndarray) -> float:
        """Mean cost per image of these flags; both arrays are bool (n,)."""
        false_positives = int((flags & ~abnormal).sum())
        false_negatives = int((~flags & abnormal).sum())
        total = self.false_positive * false_positives + self.false_negative * false_negatives
        return total / len(flags)


@dataclass(frozen=True)
class CheapestThreshold:
    """The threshold with the least cost on labelled images; costs are means per image."""

    threshold: float
    """Images with score >= threshold are flagged; infinity flags none."""
    cost: float
    """Cost on the images used to choose the threshold."""
    cost_elsewhere: float | None
    """Cost on held-out images, by five-fold cross-validation. None with fewer than five images of a
    class."""
    flag_nothing: float
    flag_everything: float


def cheapest(
    scores: np.ndarray, abnormal: np.ndarray, prices: Prices, seed: int = 0
) -> CheapestThreshold:
    """Choose the threshold with the least cost. scores: float64 (n,), abnormal: bool (n,)."""
    threshold = _cheapest(scores, abnormal, prices)
    order = np.random.default_rng(seed).permutation(len(scores))
    folds = np.empty(len(scores), np.int64)
    for value in (False, True):  # stratify the folds by class
        members = order[abnormal[order] == value]
        folds[members] = np.arange(len(members)) % _FOLDS
    elsewhere = None
    if min(abnormal.sum(), (~abnormal).sum()) >= _FOLDS:
        flags = np.zeros(len(scores), bool)
        for fold in range(_FOLDS):
            held = folds == fold
            flags[held] = scores[held] >= _cheapest(scores[~held], abnormal[~held], prices)
        elsewhere = prices.of(flags, abnormal)
    return CheapestThreshold(
        threshold,
        prices.of(scores >= threshold, abnormal),
        elsewhere,
        prices.of(np.zeros(len(scores), bool), abnormal),
        prices.of(np.ones(len(scores), bool), abnormal),
    )


def _cheapest(scores: np.ndarray, abnormal: np.ndarray, prices: Prices) -> float:
    order = np.argsort(-scores, kind="stable")
    ranked, truth = scores[order], abnormal[order]
    # cost[i]: cost of flagging the first i images. Equal scores are flagged together or not at all.
    change = np.where(truth, -prices.false_negative, prices.false_positive)
    cost = prices.false_negative * truth.sum() + np.concatenate([[0.0], np.cumsum(change)])
    cuts = np.concatenate([[True], ranked[1:] != ranked[:-1], [True]])
    best = int(np.argmin(np.where(cuts, cost, np.inf)))
    return math.inf if best == 0 else float(ranked[best - 1])
