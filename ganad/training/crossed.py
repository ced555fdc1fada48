"""Fits by statistics to some subsets of the images, and which subsets calibrate them.

Held out (calibration_folds=0): one model is fitted to `train` and scores `calibration`, which it
has not seen. If normal images are exchangeable, its p-values are exact (see ganad.calibration).

Crossed (k folds): for each fold, a model fitted to the other folds scores it. The model that is
kept is fitted to all. Every image calibrates, so p-values are several times as fine. They are
approximate, because the scores come from k models, each fitted to fewer images than the one that is
kept (Vovk: "Cross-conformal predictors", Annals of Mathematics and Artificial Intelligence 74,
2015).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ganad.archive.splits import fold_names
from ganad.detectors.base import StatisticsDetector
from ganad.errors import ConfigError


def check_folds(folds: int, num_images: int) -> None:
    """Raise ConfigError for folds of which some would be empty."""
    if folds and num_images < 2 * folds:
        raise ConfigError(
            f"calibration_folds={folds} is too many for {num_images} normal images: give "
            f"{2 * folds} images or more, or fewer folds"
        )


class SubsetFits:
    """The statistics of each subset, and fits of one detector to some of them."""

    def __init__(self, detector: StatisticsDetector[Any, Any], earlier: Sequence[Any] = ()) -> None:
        """earlier: statistics that every fit includes."""
        self.detector, self.earlier = detector, earlier
        folds = detector.config.calibration_folds
        self.scored = tuple(fold_names(folds)) or ("calibration",)
        """Subsets that calibrate."""
        self.fitted = self.scored if folds else ("train",)
        """Subsets that the model that is kept is fitted to."""
        self.keeps_vectors = not folds
        """Images of a fold are scored by a model that is then gone, and cannot be scored again."""
        self._statistics: dict[str, Any] = {}
        self._last: tuple[str, ...] | None = None
        self._facts: dict[str, Any] = {}

    def add(self, subset: str, statistics: Any) -> None:
        """Count further images of a subset."""
        if subset in self._statistics:
            statistics = self.detector.merge([self._statistics[subset], statistics])
        self._statistics[subset] = statistics

    def fit(self, scored: str | None = None) -> dict[str, Any]:
        """Fit the detector to all subsets that are fitted to, except for the one that it is to
        score; returns its facts."""
        chosen = tuple(one for one in self.fitted if one != scored and one in self._statistics)
        if chosen != self._last:
            parts = [*self.earlier, *(self._statistics[subset] for subset in chosen)]
            whole = parts[0] if len(parts) == 1 else self.detector.merge(parts)
            self._facts = self.detector.finish(whole)
            self._last = chosen
        return self._facts
