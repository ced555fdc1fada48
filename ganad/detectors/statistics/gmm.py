"""A mixture of Gaussians (Dempster, Laird, Rubin: "Maximum Likelihood from Incomplete Data via the
EM Algorithm", 1977) in deep features.

Per level ℓ of a frozen ImageNet classifier: f_ℓ(x) = the mean over all places of its map, a mixture
p_ℓ = Σ_k π_k N(μ_k, Σ_k) of the normal images' f_ℓ with covariances by Ledoit and Wolf, and

    D_ℓ(x) = √(2 log (h_ℓ / p_ℓ(f_ℓ(x)))),   A(x) = Σ_ℓ D_ℓ(x)

where h_ℓ = Σ_k π_k |2π Σ_k|^(−1/2) is the most that p_ℓ can be. So D_ℓ ranks images as their
likelihood does, and has the scale of a distance, so that levels can be added. With one component it
is the Mahalanobis distance, and the detector is `gaussian`.

K is chosen level by level without labels: components are added as long as a fifth of the normal
images, left out of the fit, becomes more likely. EM passes over the features many times, so they
are kept: those of at most max_images images, a random sample (see Reservoir).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ganad.detectors.statistics.config import GmmConfig
from ganad.detectors.statistics.reservoir import Reservoir, SampleDetector, follow_shapes
from ganad.features.mixture import Mixture, best_number, fit, squared_mahalanobis

HELD_OUT = 5
"""One in so many images judges the number of components."""
FEWEST = 10
"""With fewer images there is one component."""
SMALLEST = 1e-24
"""Squared distances below are rounding; the root of 0 has no gradient."""


class Level(nn.Module):
    """The mixture of one level."""

    means: Tensor
    whitening: Tensor
    log_shares: Tensor

    def __init__(self, dimension: int) -> None:
        super().__init__()
        # Before the fit all is nan, and so are the scores.
        nan = torch.full((1, dimension), torch.nan, dtype=torch.float64)
        self.register_buffer("means", nan)
        self.register_buffer("whitening", nan.new_full((1, dimension, dimension), torch.nan))
        # log (π_k |2π Σ_k|^(−1/2) / h)
        self.register_buffer("log_shares", nan.new_full((1,), torch.nan))
        self.register_load_state_dict_pre_hook(follow_shapes)

    def fit(self, vectors: Tensor, most: int, seed: int) -> None:
        """Fit to (n, d) in random order; raises numpy's LinAlgError for a singular covariance."""
        num = len(vectors) // HELD_OUT
        k = 1
        if most > 1 and len(vectors) >= FEWEST:
            k = best_number(vectors[num:], vectors[:num], most, seed)
        mixture = _largest(vectors, k, seed)
        self.means, self.whitening = mixture.means, mixture.whitening
        self.log_shares = mixture.log_peaks.log_softmax(0)

    def forward(self, vectors: Tensor) -> Tensor:
        """(n, d) -> distances D, float64 (n,), nan for vectors that are not finite."""
        squares = squared_mahalanobis(vectors, self.means, self.whitening)
        squared = -2 * (self.log_shares - squares / 2).logsumexp(1)
        distances = squared.clamp(min=SMALLEST).sqrt()
        return distances.where(vectors.isfinite().all(1), torch.nan)


def _largest(vectors: Tensor, most: int, seed: int) -> Mixture:
    """The mixture of the most components that can be fitted: one that was good without the
    held-out vectors may settle on a few that are alike when these are added."""
    for k in range(most, 1, -1):
        try:
            return fit(vectors, k, seed)
        except np.linalg.LinAlgError:
            continue
    return fit(vectors, 1, seed)


class Gmm(SampleDetector[GmmConfig, Level]):
    """Statistics are the features themselves; see Reservoir."""

    name = "gmm"
    summary = "mixtures of Gaussians over pooled features of a frozen ImageNet network"
    paper = "Dempster, Laird, Rubin, Maximum Likelihood via the EM Algorithm, 1977"
    good_at = "normal images of several kinds, with some hundred images of each; heat maps"
    bad_at = "few normal images; defects that are small beside the image"
    Config = GmmConfig

    def make_level(self, dimension: int) -> Level:
        return Level(dimension)

    def facts(self) -> dict[str, Any]:
        facts = super().facts()
        if self.num_kept:
            facts["levels"] = {
                name: {"dimension": level.means.shape[1], "num_components": len(level.means)}
                for name, level in self.levels.items()
            }
        return facts

    def finish(self, statistics: Reservoir) -> dict[str, Any]:
        self.refuse_few(len(statistics), "a covariance")
        return super().finish(statistics)

    def fit_level(self, level: str, vectors: Tensor) -> None:
        try:
            self.levels[level].fit(vectors, self.config.max_components, self.config.seed)
        except np.linalg.LinAlgError:
            raise self.singular(level, len(vectors)) from None

    def level_terms(self, vectors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: level(vectors[name]) for name, level in self.levels.items()}
