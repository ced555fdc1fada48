"""Held-out images kept as the features that their scores are made of."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ganad.batch.fixed import fixed
from ganad.detectors.base import (
    BatchScores,
    ConfigT,
    Extendable,
    Scores,
    StatisticsDetector,
    StatisticsT,
)


class KeepsFeatures(StatisticsDetector[ConfigT, StatisticsT], Extendable[StatisticsT]):
    """A detector whose scores follow from features that do not depend on the fit."""

    @abstractmethod
    def features(self, images: Tensor) -> dict[str, Tensor]:
        """A batch of uint8 images (n, c, h, w) -> float32 (n, d) by level."""

    @abstractmethod
    def score_features(self, features: dict[str, Tensor]) -> BatchScores:
        """The scores of a batch of images with those features, without maps."""

    def vectors(self, images: Tensor) -> dict[str, np.ndarray]:
        """uint8 images (n, c, h, w) -> by level what score_vectors scores: float32 (n, d), or
        (n, windows, d) with patches."""
        parts = []
        for some in self.patches(images).split(self.scoring_batch):
            batch, num = fixed(some, self.scoring_batch)
            parts.append({k: v[:num].cpu() for k, v in self.features(batch).items()})
        joined = {level: torch.cat([part[level] for part in parts]) for level in parts[0]}
        if self.config.patch is not None:
            joined = {k: v.reshape(len(images), -1, v.shape[-1]) for k, v in joined.items()}
        return {level: vectors.numpy() for level, vectors in joined.items()}

    def score_vectors(self, vectors: Mapping[str, np.ndarray]) -> np.ndarray:
        """The scores of the images that vectors() was given, float64 (n,)."""
        num = len(next(iter(vectors.values())))
        flat = {k: torch.tensor(v).reshape(-1, v.shape[-1]) for k, v in vectors.items()}
        parts = []
        for start in range(0, len(next(iter(flat.values()))), self.scoring_batch):
            batch = {k: v[start : start + self.scoring_batch] for k, v in flat.items()}
            num_vectors = len(next(iter(batch.values())))
            filled = {k: fixed(v, self.scoring_batch)[0].to(self.device) for k, v in batch.items()}
            parts.append(self.score_features(filled).head(num_vectors))
        scores = Scores.concatenate(parts)
        if self.config.patch is not None:
            scores = self._pool(scores, self.config.patch, len(scores) // num)
        return scores.score
