"""k nearest neighbours (Ramaswamy, Rastogi, Shim, SIGMOD 2000; Angiulli, Pizzuti, PKDD 2002) in
deep features (Bergman, Cohen, Hoshen: "Deep Nearest Neighbor Anomaly Detection", 2020).

Per level ℓ of a frozen ImageNet classifier: f_ℓ(x) = the mean over all places of its map, and

    D_ℓ(x) = the mean, or the largest, of the distances from W_ℓ f_ℓ(x) to its k nearest W_ℓ f_ℓ(t)
    A(x) = Σ_ℓ D_ℓ(x)

over training images t. W_ℓ whitens with the covariance of Ledoit and Wolf. Bergman et al. leave
the features as they are; but pooled features are strongly correlated, few directions hold most of
their variance, and it is the others that tell anomalies (Rippel et al., ICPR 2020). To scale each
feature by its own spread would leave the correlation in. Cohen, Tzachor and Hoshen ("Set Features
for Fine-grained Anomaly Detection", 2023) also whiten, with shrinkage, before they look for
neighbours. W puts the levels on one scale, too, so that they can be added.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ganad.detectors.statistics.config import Aggregation, KnnConfig, Metric
from ganad.detectors.statistics.reservoir import (
    Reservoir,
    SampleDetector,
    follow_shapes,
)
from ganad.errors import TrainingError
from ganad.features.moments import Moments, cholesky_whitening, ledoit_wolf

BLOCK = 65_536
"""Training vectors compared at a time."""


@torch.no_grad()
def nearest(queries: Tensor, vectors: Tensor, k: int, block: int = BLOCK) -> Tensor:
    """Positions (m, k) of the rows of vectors (n, d) nearest to each query (m, d), k <= n.

    Exact but for rounding, in blocks: m · block distances are in memory at a time.
    """
    best = queries.new_empty(queries.shape[0], 0)
    positions = torch.empty(queries.shape[0], 0, dtype=torch.long, device=queries.device)
    for start in range(0, len(vectors), block):
        some = vectors[start : start + block]
        # ‖v‖² − 2 q·v ranks as ‖q − v‖² does.
        ranks = torch.addmm(some.norm(dim=1).square(), queries, some.T, alpha=-2)
        found = ranks.topk(min(k, len(some)), dim=1, largest=False)
        best = torch.cat([best, found.values], 1)
        positions = torch.cat([positions, found.indices + start], 1)
        best, order = best.topk(min(k, best.shape[1]), dim=1, largest=False)
        positions = positions.gather(1, order)
    return positions


class Level(nn.Module):
    """The training images' whitened vectors at one level."""

    whitening: Tensor
    radius: Tensor
    shift: Tensor
    vectors: Tensor
    shrinkage: Tensor

    def __init__(self, dimension: int) -> None:
        super().__init__()
        nan = torch.full((dimension,), torch.nan, dtype=torch.float64)
        self.register_buffer("whitening", torch.full_like(torch.outer(nan, nan), torch.nan))
        self.register_buffer("radius", torch.tensor(torch.nan, dtype=torch.float64))
        self.register_buffer("shift", nan.clone())
        self.register_buffer("shrinkage", torch.tensor(torch.nan, dtype=torch.float64))
        self.register_buffer("vectors", torch.empty(0, dimension))
        self.register_load_state_dict_pre_hook(follow_shapes)

    def fit(self, vectors: Tensor, metric: Metric) -> None:
        """Keep these (n, d); raises numpy's LinAlgError if their covariance is singular."""
        moments = Moments.empty(vectors.double().mean(0)).add(vectors)
        shrunk = ledoit_wolf(moments)
        self.whitening.copy_(cholesky_whitening(shrunk.matrix))
        self.shrinkage.fill_(shrunk.shrinkage)
        self.radius.copy_((vectors.double() @ self.whitening.T).norm(dim=1).mean())
        whitened = self._whiten(vectors, metric)
        # Numbers near zero: float32 then has digits for what the vectors differ in.
        self.shift.copy_(whitened.mean(0))
        self.vectors = (whitened - self.shift).float()

    def forward(self, vectors: Tensor, k: int, metric: Metric, aggregation: Aggregation) -> Tensor:
        """(n, d) -> distances, float64 (n,), nan for vectors that are not finite."""
        if len(self.vectors) == 0:  # before the fit
            return self.shift.new_full((len(vectors),), torch.nan)
        queries = (self._whiten(vectors, metric) - self.shift).float()
        neighbours = self.vectors[nearest(queries, self.vectors, k)]
        # Measured anew: the products that rank them lose the digits of short distances.
        distances = (queries[:, None] - neighbours).double().norm(dim=2)
        result = distances.mean(1) if aggregation == "mean" else distances.amax(1)
        return result.where(result.isfinite(), torch.nan)

    def _whiten(self, vectors: Tensor, metric: Metric) -> Tensor:
        whitened = vectors.double() @ self.whitening.T
        if metric == "euclidean":
            return whitened
        # On a sphere of the training vectors' mean length r the euclidean distance is the chord
        # r √(2 (1 − cos)), which ranks as 1 − cos does and has the scale of the other metric.
        return whitened * (self.radius / whitened.norm(dim=1, keepdim=True))


class Knn(SampleDetector[KnnConfig, Level]):
    """Statistics are the features themselves; see Reservoir."""

    name = "knn"
    summary = "distance to the nearest normal images in features of a frozen ImageNet network"
    paper = "Bergman et al., Deep Nearest Neighbor Anomaly Detection, 2020"
    good_at = "normal images of several kinds; few normal images; no training"
    bad_at = "defects that are small beside the image; training images with anomalies among them"
    Config = KnnConfig

    def make_level(self, dimension: int) -> Level:
        return Level(dimension)

    def facts(self) -> dict[str, Any]:
        facts = super().facts()
        if self.num_kept:
            facts["levels"] = {
                name: {"dimension": len(level.shift), "shrinkage": float(level.shrinkage)}
                for name, level in self.levels.items()
            }
        return facts

    def finish(self, statistics: Reservoir) -> dict[str, Any]:
        num, k = len(statistics), self.config.k
        self.refuse_few(num, "a covariance")
        if k > num:
            raise TrainingError(
                f"k={k} is more than the {num} training images: "
                f"give more images, or set k to {num} or less"
            )
        return super().finish(statistics)

    def fit_level(self, level: str, vectors: Tensor) -> None:
        try:
            self.levels[level].fit(vectors, self.config.metric)
        except np.linalg.LinAlgError:
            raise self.singular(level, len(vectors)) from None

    def level_terms(self, vectors: dict[str, Tensor]) -> dict[str, Tensor]:
        k, metric, aggregation = self.config.k, self.config.metric, self.config.aggregation
        return {
            name: level(vectors[name], k, metric, aggregation)
            for name, level in self.levels.items()
        }
