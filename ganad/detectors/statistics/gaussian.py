"""Gaussian AD (Rippel, Mertens, Merhof: "Modeling the Distribution of Normal Data in Pre-Trained
Deep Features for Anomaly Detection", ICPR 2020).

Per level ℓ of a frozen ImageNet classifier: f_ℓ(x) = the mean over all places of its map, a
Gaussian N(μ_ℓ, Σ_ℓ) of the normal images' f_ℓ with Σ_ℓ by Ledoit and Wolf, and

    M_ℓ(x) = √((f_ℓ − μ_ℓ)ᵀ Σ_ℓ⁻¹ (f_ℓ − μ_ℓ)),   A(x) = Σ_ℓ M_ℓ(x)

Nothing is trained: fitting is one pass that sums moments.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ganad.detectors.statistics.config import GaussianConfig
from ganad.detectors.statistics.kept import KeepsFeatures
from ganad.detectors.statistics.pooled import PooledDetector
from ganad.features.moments import (
    Moments,
    cholesky_whitening,
    ledoit_wolf,
    merge,
    principal_whitening,
)


class Level(nn.Module):
    """The Gaussian of one level, and the sums it was made from, so that more can be added."""

    mean: Tensor
    whitening: Tensor
    shrinkage: Tensor
    num_kept: Tensor
    n: Tensor

    def __init__(self, dimension: int) -> None:
        super().__init__()
        # Before the fit all is nan, and so are the scores.
        self.register_buffer("mean", torch.full((dimension,), torch.nan, dtype=torch.float64))
        self.register_buffer(
            "whitening", torch.full_like(torch.outer(self.mean, self.mean), torch.nan)
        )
        self.register_buffer("shrinkage", torch.tensor(torch.nan, dtype=torch.float64))
        self.register_buffer("num_kept", torch.tensor(0))
        for name, array in Moments.empty(torch.zeros(dimension)).to_arrays().items():
            self.register_buffer(name, torch.from_numpy(array.copy()))

    @property
    def moments(self) -> Moments:
        """A copy of the sums."""
        parts = (self.get_buffer(name).clone() for name in ("x0", "s", "s2", "a", "u", "q"))
        return Moments(int(self.n), *parts)

    def fit(self, moments: Moments, reduction: str, explained_variance: float) -> None:
        """Raises numpy's LinAlgError if the covariance is singular."""
        shrunk = ledoit_wolf(moments)
        if reduction == "none":
            whitening = cholesky_whitening(shrunk.matrix)
        elif reduction == "pca":
            whitening = principal_whitening(shrunk, "pca", explained_variance)
        else:
            whitening = principal_whitening(shrunk, "npca", explained_variance)
        self.mean.copy_(shrunk.mean)
        # Rows of zeros for the components dropped: shapes then do not depend on the data.
        self.whitening.zero_()[: len(whitening)] = whitening
        self.shrinkage.fill_(shrunk.shrinkage)
        self.num_kept.fill_(len(whitening))
        for name, array in moments.to_arrays().items():
            self.get_buffer(name).copy_(torch.from_numpy(array))

    def forward(self, vectors: Tensor) -> Tensor:
        """(n, d) -> Mahalanobis distances, float64 (n,), nan for vectors that are not finite."""
        # float64 costs little here and the whitening of a wide level spans many digits.
        distances = ((vectors.double() - self.mean) @ self.whitening.T).norm(dim=1)
        return distances.where(distances.isfinite(), torch.nan)


class Gaussian(
    PooledDetector[GaussianConfig, dict[str, Moments], Level],
    KeepsFeatures[GaussianConfig, dict[str, Moments]],
):
    """Statistics are Moments by level. Those of the training stay in the model:

    more = detector.observe(detector.begin(images), images)
    detector.finish(detector.merge([detector.statistics, more]))
    """

    name = "gaussian"
    summary = (
        "Gaussians over pooled features of a frozen ImageNet network; score = sum of distances"
    )
    paper = "Rippel et al., Modeling the Distribution of Normal Data, ICPR 2020"
    good_at = "photographs of objects and surfaces; few normal images; no training"
    bad_at = "defects that are small beside the image; images unlike photographs"
    Config = GaussianConfig

    def make_level(self, dimension: int) -> Level:
        return Level(dimension)

    @property
    def statistics(self) -> dict[str, Moments]:
        """The sums that the model was fitted to; empty ones before."""
        return {name: level.moments for name, level in self.levels.items()}

    def facts(self) -> dict[str, Any]:
        digest = super().facts()
        num_images = max(int(level.n) for level in self.levels.values())
        if num_images == 0:
            return digest
        return {
            **digest,
            "num_images": num_images,
            "levels": {
                name: {
                    "dimension": len(level.mean),
                    "num_kept": int(level.num_kept),
                    "shrinkage": float(level.shrinkage),
                }
                for name, level in self.levels.items()
            },
        }

    def begin(self, images: Tensor) -> dict[str, Moments]:
        first = self.features(self.patches(images)[: self.scoring_batch])
        return {level: Moments.empty(vectors.mean(0)) for level, vectors in first.items()}

    def observe(self, statistics: dict[str, Moments], images: Tensor) -> dict[str, Moments]:
        # Statistics begun in another process lie in its memory; the sums belong on this device.
        statistics = {level: moments.to(self.device) for level, moments in statistics.items()}
        for varied in self.passes(images):
            for found in self.training_features(varied):
                statistics = {level: sums.add(found[level]) for level, sums in statistics.items()}
        return statistics

    def merge(self, parts: Iterable[dict[str, Moments]]) -> dict[str, Moments]:
        every = list(parts)
        return {level: merge(part[level] for part in every) for level in every[0]}

    def finish(self, statistics: dict[str, Moments]) -> dict[str, Any]:
        for name, level in self.levels.items():
            moments = statistics[name].to(level.mean.device)
            num = int(moments.n)
            self.refuse_few(num, "a covariance")
            centred = moments.about(moments.mean)
            spread = (centred.a / centred.n).clamp(min=0).sqrt()
            self.refuse_constant(name, num, float(spread), float(moments.mean.norm()))
            try:
                level.fit(moments, self.config.reduction, self.config.explained_variance)
            except np.linalg.LinAlgError:
                raise self.singular(name, num) from None
        return self.facts()

    def level_terms(self, vectors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: level(vectors[name]) for name, level in self.levels.items()}
