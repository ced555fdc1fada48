"""Scores of held-out normal images turn a raw score into a p-value, without any label.

The p-value of a score s is (1 + #{calibration scores >= s}) / (n + 1). If normal images are
exchangeable with the calibration images, a share of at most a of them gets p <= a, for every a
and every n (Vovk, Gammerman and Shafer 2005, Algorithmic Learning in a Random World, sec. 2).
Nothing is ever scaled by the images being scored.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ganad.errors import TrainingError

RECOMMENDED = 200
"""Calibration images below which p-values are coarse enough to say so."""


def above(num: int, share: float) -> int:
    """How many of num normal images may exceed a level that a further one exceeds with at most this
    probability, and which it may equal: floor((num + 1) share)."""
    # The tiny term undoes the rounding of, say, 100 * 0.29.
    return int(np.floor((num + 1) * share + 1e-9))


@dataclass(frozen=True, eq=False)
class Calibration:
    """Sorted scores of held-out normal images: float64 (n,), with their image ids.

    Raises TrainingError if there is no score, if one is NaN or infinite, or if several are all
    equal (such a detector tells no image from another).
    """

    scores: np.ndarray
    ids: tuple[str, ...]
    folds: int = 0
    """0: one model scored images that it was not fitted to, and p-values are exact. k: crossed in
    k folds, and they are approximate (see ganad.training.crossed)."""

    def __post_init__(self) -> None:
        scores = np.asarray(self.scores, dtype=np.float64).reshape(-1)
        if len(scores) != len(self.ids):
            raise ValueError(f"{len(scores)} scores and {len(self.ids)} ids: one id per score")
        if len(scores) == 0:
            raise TrainingError(
                "calibration has no images, so no p-value can be given: "
                "hold out some normal images for it"
            )
        num_bad = int(np.count_nonzero(~np.isfinite(scores)))
        if num_bad:
            raise TrainingError(
                f"calibration scores are NaN or infinite for {num_bad} of {len(scores)} images, so "
                f"training has diverged: lower learning_rate or set precision=float32"
            )
        if len(scores) > 1 and scores.min() == scores.max():
            raise TrainingError(
                f"calibration scores of all {len(scores)} images are {scores[0]:g}, so this "
                f"detector tells no image from another: train longer or with another seed"
            )
        # Equal scores are ordered by id, so that the same images always make the same file.
        order = np.lexsort((np.asarray(self.ids), scores))
        sorted_scores = scores[order]
        sorted_scores.flags.writeable = False
        object.__setattr__(self, "scores", sorted_scores)
        object.__setattr__(self, "ids", tuple(str(self.ids[i]) for i in order))

    def __len__(self) -> int:
        return len(self.scores)

    def p_values(self, scores: np.ndarray) -> np.ndarray:
        """The share of normal images that look at least as anomalous: float64, shape of scores.

        Never below 1 / (n + 1); a NaN score has a NaN p-value.
        """
        scores = np.asarray(scores, dtype=np.float64)
        num_at_least = len(self) - np.searchsorted(self.scores, scores, side="left")
        return np.where(np.isnan(scores), np.nan, (1 + num_at_least) / (len(self) + 1))

    def threshold(self, false_positive_rate: float) -> float:
        """The score above which an image is flagged so that at most this share of normals is.

        It is the ceil((n + 1)(1 - a))-th smallest calibration score, and score > threshold is the
        same as p_value <= a. With fewer than 1/a - 1 calibration images no score is high enough:
        infinity, with a warning.
        """
        if not 0 < false_positive_rate < 1:
            raise ValueError(f"{false_positive_rate} is no share: give one between 0 and 1")
        num_above = above(len(self), false_positive_rate)
        if num_above == 0:
            warnings.warn(
                f"{len(self)} calibration images cannot show a false-positive rate of "
                f"{false_positive_rate:g}; the smallest they can is {1 / (len(self) + 1):.2g}",
                stacklevel=2,
            )
            return float("inf")
        return float(self.scores[len(self) - num_above])

    @property
    def method(self) -> str:
        """How it was made, in a few words."""
        if self.folds:
            return f"crossed ({len(self)} images in {self.folds} folds): p-values are approximate"
        return f"held out ({len(self)} images): p-values are exact"

    def notes(self) -> list[str]:
        """What a user should know before trusting these p-values; empty if nothing."""
        notes = []
        if len(self) < RECOMMENDED:
            notes.append(
                f"calibrated on {len(self)} images: no p-value is below {1 / (len(self) + 1):.2g}; "
                f"{RECOMMENDED} or more give finer ones"
            )
        if self.folds:
            notes.append(
                f"p-values are approximate: {self.folds} models have scored the {len(self)} "
                f"calibration images, each without the fold that it scored; this model is fitted "
                f"to all of them"
            )
        num_distinct = len(np.unique(self.scores))
        if num_distinct <= len(self) // 2:
            notes.append(
                f"only {num_distinct} of {len(self)} calibration scores differ, so p-values are "
                f"coarse"
            )
        return notes

    def to_table(self) -> pa.Table:
        """Columns image_id and score, sorted by score; the metadata has the folds."""
        table = pa.table({"image_id": pa.array(self.ids, pa.string()), "score": self.scores})
        return table.replace_schema_metadata({"folds": str(self.folds)})

    @classmethod
    def from_table(cls, table: pa.Table) -> Calibration:
        """The inverse of to_table; raises ValueError if a column is missing."""
        missing = {"image_id", "score"} - set(table.column_names)
        if missing:
            raise ValueError(f"calibration table lacks the column {', '.join(sorted(missing))}")
        folds = int((table.schema.metadata or {}).get(b"folds", 0))
        return cls(table["score"].to_numpy(), tuple(table["image_id"].to_pylist()), folds)
