"""Whether another engine may score for a model: its scores must mean the same p-values.

A p-value compares a score with calibration scores of normal images. If those come from the eager
pass and the archive's from another engine, the two must agree: on the same images the ranks agree
(Spearman's rho at least .9999), and no p-value moves by more than one calibration image.

What a model is fitted to need not agree to the last bit either: a fit to features that differ by
rounding is as good a fit, and is calibrated by itself. Features of channels that vary must agree to
a thousandth of their spread.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from ganad.calibration import Calibration

SPEARMAN = 0.9999
MIN_IMAGES = 20
"""Fewer images say nothing about ranks."""
FEATURES = 1e-3
"""Largest difference of a channel (root of its mean square) as a share of the channel's spread."""
CONSTANT = 1e-4
"""Channels whose spread is less than this share of the largest count as if they had that spread:
what is left of them is rounding."""


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
        """For model.json and run.json, whose numbers are finite: None for others."""
        return _finite(asdict(self))


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


@dataclass(frozen=True)
class FeatureAgreement:
    """How the features of an engine agree with those of the eager pass on n images."""

    n: int
    difference: float
    """Largest difference of a channel, as a share of its spread."""
    passed: bool

    def facts(self) -> dict[str, Any]:
        """For model.json; None for a difference that is not finite."""
        return _finite(asdict(self))


def feature_agreement(eager: Sequence[Tensor], engine: Sequence[Tensor]) -> FeatureAgreement:
    """Compare outputs of a frozen network for the same images, each (n, C, ...)."""
    worst = 0.0
    for first, second in zip(eager, engine, strict=True):
        if not (torch.isfinite(first).all() and torch.isfinite(second).all()):
            worst = float("inf")
            break
        by_channel = [one.double().transpose(0, 1).flatten(1) for one in (first, second)]
        difference = (by_channel[0] - by_channel[1]).square().mean(1).sqrt()
        spread = by_channel[0].std(1, correction=0)
        floor = spread.clamp_min(CONSTANT * spread.max().item())
        shares = torch.where(difference > 0, difference / floor, 0.0)
        worst = max(worst, shares.max().item())
    return FeatureAgreement(len(eager[0]), worst, worst <= FEATURES)


def _finite(facts: dict[str, Any]) -> dict[str, Any]:
    return {key: value if math.isfinite(value) else None for key, value in facts.items()}
