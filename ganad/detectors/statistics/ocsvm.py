"""One-class SVM (Schölkopf, Platt, Shawe-Taylor, Smola, Williamson: "Estimating the Support of a
High-Dimensional Distribution", Neural Computation 13, 2001) in deep features.

Per level ℓ of a frozen ImageNet classifier: f_ℓ(x) = the mean over all places of its map, and

    A_ℓ(x) = −(Σ_i α_i exp(−γ ‖f_ℓ(x) − s_i‖²) − ρ),   A(x) = the mean of A_ℓ(x) over the levels

with support vectors s_i among the training images, 0 < α_i <= 1, Σ_i α_i = ν n. This is the
baseline in the code of Rippel, Mertens and Merhof (ICPR 2020): features as they are, one γ = 1 / (d
Var f_ℓ) per level. scikit-learn fits; what it finds is kept as tensors, and those score.
"""

from __future__ import annotations

from typing import Any

import torch
from sklearn.svm import OneClassSVM
from torch import Tensor, nn

from ganad.detectors.statistics.config import OcsvmConfig
from ganad.detectors.statistics.reservoir import (
    Reservoir,
    SampleDetector,
    follow_shapes,
)


class Level(nn.Module):
    """The support of one level."""

    support: Tensor
    dual: Tensor
    intercept: Tensor
    gamma: Tensor

    def __init__(self, dimension: int) -> None:
        super().__init__()
        # float32 holds them exactly, for that is what features are.
        self.register_buffer("support", torch.empty(0, dimension))
        self.register_buffer("dual", torch.empty(0, dtype=torch.float64))
        # Before the fit this is nan, and so are the scores.
        self.register_buffer("intercept", torch.tensor(torch.nan, dtype=torch.float64))
        self.register_buffer("gamma", torch.tensor(torch.nan, dtype=torch.float64))
        self.register_load_state_dict_pre_hook(follow_shapes)

    def fit(self, vectors: Tensor, nu: float) -> None:
        """Fit to float32 (n, d) whose features are not all one number."""
        x = vectors.double().cpu().numpy()
        gamma = 1 / (x.shape[1] * x.var())  # what scikit-learn calls scale
        svm = OneClassSVM(kernel="rbf", gamma=gamma, nu=nu).fit(x)
        self.support = vectors[torch.from_numpy(svm.support_).to(vectors.device).long()]
        self.dual = self.intercept.new_tensor(svm.dual_coef_[0])
        self.intercept.fill_(float(svm.intercept_[0]))
        self.gamma.fill_(float(gamma))

    def forward(self, vectors: Tensor) -> Tensor:
        """(n, d) -> the negated decision function, float64 (n,), nan for what is not finite."""
        squared = torch.cdist(vectors.double(), self.support.double()).square()
        result = -(torch.exp(-self.gamma * squared) @ self.dual + self.intercept)
        # Infinitely far away the kernel is 0, a number like any other.
        return result.where(vectors.isfinite().all(1), torch.nan)


class Ocsvm(SampleDetector[OcsvmConfig, Level]):
    """Statistics are the features themselves; see Reservoir."""

    name = "ocsvm"
    summary = "one-class SVMs over pooled features of a frozen ImageNet network; score = their mean"
    paper = "Schölkopf et al., Estimating the Support of a High-Dimensional Distribution, 2001"
    good_at = "some anomalies among the training images; no training of a network"
    bad_at = "subtle defects; ranking what lies far from all normal images, where scores level off"
    Config = OcsvmConfig
    averaged = True

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
        self.levels[level].fit(vectors, self.config.nu)

    def level_terms(self, vectors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: level(vectors[name]) for name, level in self.levels.items()}
