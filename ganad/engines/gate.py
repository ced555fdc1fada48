"""Whether another engine may score for a model: its scores must mean the same p-values.

A p-value compares a score with calibration scores of normal images. If those come from the eager
pass and the archive's from another engine, the two must agree: on the same images the ranks agree
(Spearman's rho at least .9999), and no p-value moves by more than one calibration image.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from ganad.calibration import Calibration

SPEARMAN = 0.9999
MIN_IMAGES = 20
"""Fewer images say nothing about ranks."""


@dataclass(frozen=True)
class Agreement:
    """How the scores of an engine agree with those of the eager pass on n images."""

    n: int
    spearman: float
    p_difference: float
    """Largest difference of a p-value; nan without calibration."""
    score_difference: float
    """Largest difference of a score, as a share of the spread (standard deviation) of the eager
    scores."""
    passed: bool

    def facts(self) -> dict[str, Any]:
        """For model.json and run.json."""
        return asdict(self)


def agreement(eager: np.ndarray, engine: np.ndarray, calibration: Calibration | None) -> Agreement:
    """Compare scores, float64 (n,), of the same images; images without a score are left out."""
    both = np.isfinite(eager) & np.isfinite(engine)
    same_errors = bool((np.isfinite(eager) == np.isfinite(engine)).all())
    first, second = eager[both], engine[both]
    if len(first) < MIN_IMAGES:
        return Agreement(len(first), float("nan"), float("nan"), float("nan"), False)
    rho = 1.0 if np.array_equal(first, second) else float(spearmanr(first, second).statistic)
    spread = float(first.std())
    largest = float(np.abs(first - second).max())
    share = 0.0 if largest == 0 else largest / spread if spread > 0 else float("inf")
    p_difference, allowed = float("nan"), True
    if calibration is not None:
        moved = np.abs(calibration.p_values(first) - calibration.p_values(second))
        p_difference = float(moved.max())
        allowed = p_difference <= (1 + 1e-9) / (len(calibration) + 1)
    passed = bool(same_errors and allowed and rho >= SPEARMAN)
    return Agreement(len(first), rho, p_difference, share, passed)
