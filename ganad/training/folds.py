"""A crossed calibration of a method trained by gradient: k trainings, each without a fold, that
score the fold; then one on all images, whose model is kept.

ganad.training.crossed has the same for fits by statistics, and says what its p-values are worth. Of
scores that are sums of standardised terms, each training standardises by its own fold, and the
model that is kept by the mean of their means and spreads: no image tells of a network that it has
trained.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ganad.detectors.gradient import GradientDetector
from ganad.detectors.places import TermScale
from ganad.training.held_out import HeldOut


def chosen(parts: Sequence[str], subset: str, folds: int, fold: str | None) -> np.ndarray:
    """Which rows are a subset (train, calibration, validation) of one training: bool (n,).

    parts: the column `part` of the rows. fold: the one that this training leaves out and scores;
    None for the training on all images.
    """
    column = np.asarray(parts, dtype=object)
    if not folds:
        return np.asarray(column == subset)
    left_out = np.asarray(column == fold)
    return {"train": ~left_out, "calibration": left_out}.get(subset, np.zeros(len(column), bool))


@dataclass(frozen=True)
class FoldResult:
    """What a training without a fold is for."""

    fold: str
    held_out: HeldOut
    """The fold, scored."""
    scale: TermScale | None
    history: Sequence[dict[str, Any]]

    @property
    def events(self) -> list[dict[str, Any]]:
        """Events of its history that a user should know, such as signs of collapse."""
        return [
            {"step": entry["step"], "event": f"without {self.fold}: {entry['event']}"}
            for entry in self.history
            if "event" in entry
        ]


def settle(detector: GradientDetector[Any], results: Iterable[FoldResult]) -> HeldOut:
    """All images scored by models that have not seen them; the detector, trained on all, takes the
    mean of their scales."""
    every = list(results)
    scales = [one.scale for one in every if one.scale is not None]
    if detector.scale is not None and scales:
        detector.scale.average(scales)
    return HeldOut.merge(one.held_out for one in every)
