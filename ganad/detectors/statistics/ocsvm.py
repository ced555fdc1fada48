"""One-class SVM (Schölkopf, Platt, Shawe-Taylor, Smola, Williamson: "Estimating the Support of a
High-Dimensional Distribution", Neural Computation 13, 2001) in deep features.

Per level ℓ of a frozen ImageNet classifier: f_ℓ(x) = the mean over all places of its map, w = W_ℓ
f_ℓ(x) whitened as for `knn`, and

    s(x) = Σ_i α_i exp(−γ ‖w − w_i‖²),   x is outside if s(x) < ρ

with support vectors w_i among the training images, 0 < α_i <= 1, Σ_i α_i = ν n, and γ = 1 / the
median of the training images' squared distances. scikit-learn fits; what it finds is kept as
tensors, and those score. The score is made of s and ρ as distances:

    D(t) = √(−log(t / Σ_i α_i) / γ),   A_ℓ(x) = D(s(x)) − D(ρ),   A(x) = Σ_ℓ A_ℓ(x)

D(s) is the distance to a support vector, were it the only one. So A_ℓ ranks as s does and is
positive outside, but it does not level off far away, and levels are summed on the scale that they
have in `knn` and `gaussian`. In the code of Rippel, Mertens and Merhof (ICPR 2020) features are as
they are, γ = 1 / (d Var f_ℓ), and A is the mean of ρ − s. There a few directions, which hold most
of the variance and tell little of anomalies, make the distances, and levels that tell little weigh
as much as those that tell most.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.svm import OneClassSVM
from torch import Tensor, nn

from ganad.detectors.statistics.config import OcsvmConfig
from ganad.detectors.statistics.reservoir import (
    Reservoir,
    SampleDetector,
    follow_shapes,
)
from ganad.features.moments import Moments, cholesky_whitening, ledoit_wolf

SMALLEST = 1e-24
"""Squared distances below are rounding; the root of 0 has no gradient."""


class Level(nn.Module):
    """The support of one level."""

    mean: Tensor
    whitening: Tensor
    support: Tensor
    log_shares: Tensor
    radius: Tensor
    gamma: Tensor

    def __init__(self, dimension: int) -> None:
        super().__init__()
        # Before the fit numbers are nan, and so are the scores.
        nan = torch.tensor(torch.nan, dtype=torch.float64)
        self.register_buffer("mean", nan.expand(dimension).clone())
        self.register_buffer("whitening", nan.expand(dimension, dimension).clone())
        # Whitened.
        self.register_buffer("support", nan.new_empty(0, dimension))
        # log (α_i / Σ α)
        self.register_buffer("log_shares", nan.new_empty(0))
        # D(ρ)
        self.register_buffer("radius", nan.clone())
        self.register_buffer("gamma", nan.clone())
        self.register_load_state_dict_pre_hook(follow_shapes)

    def fit(self, vectors: Tensor, nu: float) -> None:
        """Fit to float32 (n, d), n >= 2, that differ; raises numpy's LinAlgError if their
        covariance is singular."""
        shrunk = ledoit_wolf(Moments.empty(vectors.double().mean(0)).add(vectors))
        self.mean.copy_(shrunk.mean)
        self.whitening.copy_(cholesky_whitening(shrunk.matrix))
        whitened = self._whiten(vectors)
        squares = torch.pdist(whitened).square()
        # Copies may be so many that the median is 0.
        gamma = 1 / float(squares[squares > 0].median())
        svm = OneClassSVM(kernel="rbf", gamma=gamma, nu=nu).fit(whitened.numpy(force=True))
        self.support = whitened[torch.from_numpy(svm.support_).to(vectors.device).long()]
        alpha = self.gamma.new_tensor(svm.dual_coef_[0])
        self.log_shares = (alpha / alpha.sum()).log()
        self.gamma.fill_(gamma)
        rho = -float(svm.intercept_[0]) / float(alpha.sum())
        self.radius.fill_(np.sqrt(max(-np.log(rho), 0.0) / gamma))

    def forward(self, vectors: Tensor) -> Tensor:
        """(n, d) -> A, float64 (n,), nan for what is not finite."""
        if len(self.support) == 0:  # before the fit
            return self.gamma.new_full((len(vectors),), torch.nan)
        squared = torch.cdist(self._whiten(vectors), self.support).square()
        # As a sum of logarithms s has digits also where it is next to 0.
        log_s = (self.log_shares - self.gamma * squared).logsumexp(1)
        distances = (-log_s / self.gamma).clamp(min=SMALLEST).sqrt()
        return (distances - self.radius).where(vectors.isfinite().all(1), torch.nan)

    def _whiten(self, vectors: Tensor) -> Tensor:
        return (vectors.double() - self.mean) @ self.whitening.T


class Ocsvm(SampleDetector[OcsvmConfig, Level]):
    """Statistics are the features themselves; see Reservoir."""

    name = "ocsvm"
    summary = "one-class SVMs over pooled features of a frozen ImageNet network"
    paper = "Schölkopf et al., Estimating the Support of a High-Dimensional Distribution, 2001"
    good_at = "some anomalies among the training images; no training of a network"
    bad_at = "defects that are small beside the image; many normal images, for the fit is slow"
    Config = OcsvmConfig

    def make_level(self, dimension: int) -> Level:
        return Level(dimension)

    def facts(self) -> dict[str, Any]:
        facts = super().facts()
        if self.num_kept:
            facts["levels"] = {
                name: {
                    "dimension": level.support.shape[1],
                    "num_support": len(level.support),
                    "gamma": float(level.gamma),
                }
                for name, level in self.levels.items()
            }
        return facts

    def finish(self, statistics: Reservoir) -> dict[str, Any]:
        self.refuse_few(len(statistics), "a boundary")
        return super().finish(statistics)

    def fit_level(self, level: str, vectors: Tensor) -> None:
        try:
            self.levels[level].fit(vectors, self.config.nu)
        except np.linalg.LinAlgError:
            raise self.singular(level, len(vectors)) from None

    def level_terms(self, vectors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: level(vectors[name]) for name, level in self.levels.items()}
