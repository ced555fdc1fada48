"""A mixture of Gaussians by expectation maximisation (Dempster, Laird, Rubin 1977).

The M step needs, for each component k with responsibilities r, only weighted sums: n_k = Σ r,
Σ r x and Σ r x xᵀ. They are Moments, which merge, so that the E step can go over shards apart and
in any order. Covariances are shrunk by Ledoit and Wolf: with one component this is their estimate.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ganad.features.kmeans import kmeans, squared_distances
from ganad.features.moments import Moments, cholesky_whitening, ledoit_wolf, merge

MAX_STEPS = 100
TOLERANCE = 1e-4
"""Steps end when one raises the mean log-likelihood of a coordinate by less."""
FEWEST = 2.0
"""A component with fewer vectors is dropped."""


@dataclass(frozen=True)
class Mixture:
    """K Gaussians in p coordinates, float64."""

    means: Tensor
    """(K, p)."""
    whitening: Tensor
    """W_k with W_kᵀ W_k = Σ_k⁻¹, lower triangular, (K, p, p)."""
    log_peaks: Tensor
    """log (π_k |Σ_k|^(−1/2)), (K,): the height of each component but for (2π)^(−p/2)."""

    @staticmethod
    def of(parts: Sequence[Moments]) -> Mixture:
        """The M step: from the weighted moments of each component.

        Raises numpy's LinAlgError if a covariance is singular.
        """
        kept = [part for part in parts if part.n >= FEWEST]
        if not kept:
            raise np.linalg.LinAlgError("no component has two vectors")
        shrunk = [ledoit_wolf(part) for part in kept]
        whitening = torch.stack([cholesky_whitening(one.matrix) for one in shrunk])
        counts = whitening.new_tensor([part.n for part in kept])
        heights = whitening.diagonal(dim1=1, dim2=2).log().sum(1)
        means = torch.stack([one.mean for one in shrunk])
        return Mixture(means, whitening, (counts / counts.sum()).log() + heights)

    def log_joint(self, vectors: Tensor) -> Tensor:
        """log (π_k N(x; μ_k, Σ_k)) + (p/2) log 2π of vectors (n, p), float64 (n, K)."""
        return self.log_peaks - squared_mahalanobis(vectors, self.means, self.whitening) / 2

    def log_likelihood(self, vectors: Tensor) -> float:
        """The mean of log p(x) + (p/2) log 2π over vectors (n, p)."""
        return float(self.log_joint(vectors).logsumexp(1).mean())


def squared_mahalanobis(vectors: Tensor, means: Tensor, whitening: Tensor) -> Tensor:
    """Vectors (n, p) and K components -> ‖W_k (x − μ_k)‖², float64 (n, K), differentiable."""
    x = vectors.double()
    columns = [
        ((x - mean) @ matrix.T).square().sum(1)
        for mean, matrix in zip(means, whitening, strict=True)
    ]
    return torch.stack(columns, 1)


def sums(vectors: Tensor, shares: Tensor, x0: Tensor) -> list[Moments]:
    """The sums of each component over vectors (n, p) with responsibilities (n, K); x0 as in
    Moments."""
    return [Moments.empty(x0).add(vectors, column) for column in shares.T]


def merge_sums(parts: Iterable[Sequence[Moments]]) -> list[Moments]:
    """The sums of each component over all parts together."""
    return [merge(of_component) for of_component in zip(*parts, strict=True)]


def fit(vectors: Tensor, k: int, seed: int) -> Mixture:
    """A mixture of at most k components fitted to vectors (n, p), n >= 2.

    It begins with the clusters of a k-means in coordinates that are whitened as a whole. Raises
    numpy's LinAlgError if a covariance is singular.
    """
    x = vectors.double()
    x0 = x.mean(0)
    mixture = Mixture.of(sums(x, torch.ones_like(x[:, :1]), x0))
    if k == 1:
        return mixture
    whitened = (x - x0) @ mixture.whitening[0].T
    centres = kmeans(whitened, k, seed)
    nearest = squared_distances(whitened, centres).argmin(1)
    shares = torch.nn.functional.one_hot(nearest, len(centres)).double()
    likelihood = -np.inf
    for _ in range(MAX_STEPS):
        mixture = Mixture.of(sums(x, shares, x0))
        joint = mixture.log_joint(x)
        reached = float(joint.logsumexp(1).mean())
        if not reached - likelihood > TOLERANCE * x.shape[1]:
            break
        likelihood, shares = reached, joint.softmax(1)
    return mixture


def best_number(vectors: Tensor, held_out: Tensor, most: int, seed: int) -> int:
    """K in 1..most: components are added as long as a fit to vectors (n, p) makes held-out vectors
    (m, p) more likely."""
    best, likelihood = 1, -np.inf
    for k in range(1, most + 1):
        try:
            reached = fit(vectors, k, seed).log_likelihood(held_out)
        except np.linalg.LinAlgError:
            break
        if not reached > likelihood:
            break
        best, likelihood = k, reached
    return best
