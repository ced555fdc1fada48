"""Mean and Ledoit–Wolf covariance from one pass over the data, mergeable over shards.

Ledoit, Wolf: "A well-conditioned estimator for large-dimensional covariance matrices", J.
Multivariate Analysis 88 (2004). The shrinkage needs fourth moments of the centred vectors; they
follow exactly from six sums over vectors shifted by any origin x₀, so shards can be summed apart,
merged in any order, and taken away again. Everything is float64.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import torch
from scipy.stats import chi2
from torch import Tensor


@dataclass
class Moments:
    """Sums over n vectors of width p, each shifted to x − x₀; see ledoit_wolf.

    A shift near the mean keeps the sums small beside their differences, which is where the digits
    are. The tensors may lie on any one device.
    """

    n: float
    """An integer, unless vectors were added with weights: then the sum of these."""
    x0: Tensor
    """x₀, (p,)."""
    s: Tensor
    """Σ x, (p,)."""
    s2: Tensor
    """Σ x xᵀ, (p, p)."""
    a: Tensor
    """Σ ‖x‖², a scalar."""
    u: Tensor
    """Σ ‖x‖² x, (p,)."""
    q: Tensor
    """Σ ‖x‖⁴, a scalar."""

    @staticmethod
    def empty(x0: Tensor) -> Moments:
        """No vectors yet, to be shifted by x0 (p,)."""
        x0 = x0.double()
        zero = torch.zeros_like(x0)
        scalar = x0.new_zeros(())
        return Moments(0, x0.clone(), zero, torch.outer(zero, zero), scalar, zero.clone(), scalar)

    @property
    def mean(self) -> Tensor:
        """Of the vectors themselves, (p,); nan without any."""
        return self.x0 + self.s / self.n if self.n else torch.full_like(self.s, torch.nan)

    def add(self, vectors: Tensor, weights: Tensor | None = None) -> Moments:
        """These and vectors (m, p) more, each counted by its weight (m,) if there are weights."""
        x = vectors.to(self.x0).sub(self.x0)
        norm = x.square().sum(1)
        if weights is None:
            num: float = len(x)
            weighted, weighted_norm = x, norm
        else:
            num = float(weights.sum())
            weighted, weighted_norm = x * weights[:, None], norm * weights
        return Moments(
            self.n + num,
            self.x0,
            self.s + weighted.sum(0),
            torch.addmm(self.s2, x.T, weighted),
            self.a + weighted_norm.sum(),
            self.u + weighted_norm @ x,
            self.q + weighted_norm @ norm,
        )

    def about(self, x0: Tensor) -> Moments:
        """The same vectors, shifted by another x0: x − x₀' = x + d, expanded."""
        d = self.x0 - x0.to(self.x0)
        if not d.any():
            return self
        c = d @ d
        s2d = self.s2 @ d
        sd = self.s @ d
        cross = torch.outer(self.s, d)
        return Moments(
            self.n,
            x0.to(self.x0),
            self.s + self.n * d,
            self.s2 + cross + cross.T + self.n * torch.outer(d, d),
            self.a + 2 * sd + self.n * c,
            self.u + 2 * s2d + c * self.s + (self.a + 2 * sd + self.n * c) * d,
            self.q + 4 * d @ s2d + self.n * c**2 + 4 * self.u @ d + 2 * c * self.a + 4 * c * sd,
        )

    def subtract(self, other: Moments) -> Moments:
        """These without vectors that are among them; raises ValueError if there are more."""
        if other.n > self.n:
            raise ValueError(f"{other.n} vectors cannot be taken from {self.n}")
        return self._combine(other, -1)

    def to(self, device: str | torch.device) -> Moments:
        """On another device."""
        return Moments(self.n, *(tensor.to(device) for tensor in self._tensors()))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Plain arrays by field name, for a file or another process."""
        arrays = {"n": np.array(self.n)}
        names = [field.name for field in fields(self)][1:]
        for name, tensor in zip(names, self._tensors(), strict=True):
            arrays[name] = tensor.cpu().numpy()
        return arrays

    @staticmethod
    def from_arrays(arrays: Mapping[str, np.ndarray]) -> Moments:
        """The inverse of to_arrays."""
        names = [field.name for field in fields(Moments)][1:]
        return Moments(arrays["n"].item(), *(torch.from_numpy(arrays[name]) for name in names))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as arrays: who reads it may have no such device."""
        return Moments.from_arrays, (self.to_arrays(),)

    def _tensors(self) -> tuple[Tensor, ...]:
        return self.x0, self.s, self.s2, self.a, self.u, self.q

    def _combine(self, other: Moments, sign: int) -> Moments:
        other = other.to(self.x0.device).about(self.x0)
        sums = zip(self._tensors()[1:], other._tensors()[1:], strict=True)
        n = self.n + sign * other.n
        return Moments(n, self.x0, *(ours + sign * theirs for ours, theirs in sums))


def merge(parts: Iterable[Moments]) -> Moments:
    """The moments of all parts together; their origins may differ. Needs one part at least."""
    first, *rest = parts
    total = first
    for part in rest:
        total = total._combine(part, 1)
    return total


@dataclass(frozen=True)
class ShrunkCovariance:
    """A mean and a covariance (1 − ρ) S + ρ m I, with S the sample's own and m = tr(S)/p."""

    mean: Tensor
    """(p,)."""
    sample: Tensor
    """S, (p, p), with 1/n."""
    shrinkage: float
    """ρ in 0..1."""

    @property
    def variance(self) -> float:
        """m, the mean variance of a coordinate."""
        return self.sample.trace().item() / len(self.mean)

    @property
    def matrix(self) -> Tensor:
        """(p, p)."""
        shrunk = (1 - self.shrinkage) * self.sample
        shrunk.diagonal().add_(self.shrinkage * self.variance)
        return shrunk


def ledoit_wolf(moments: Moments) -> ShrunkCovariance:
    """Equals scikit-learn's LedoitWolf of the same vectors; needs one vector at least.

    S = (1/n) Σ y yᵀ,  y = x − mean
    β = (1/(p n)) [(1/n) Σ ‖y‖⁴ − ‖S‖²],  δ = (1/p) [‖S‖² − p m²],  ρ = min(β, δ) / δ
    """
    centred = moments.about(moments.mean)
    p = len(centred.x0)
    sample = centred.s2 / centred.n
    sample = (sample + sample.T) / 2
    m = sample.trace().item() / p
    norm = sample.square().sum().item()
    beta = max((centred.q.item() / centred.n - norm) / (p * centred.n), 0.0)
    delta = (norm - p * m**2) / p
    shrinkage = min(beta, delta) / delta if beta > 0 and delta > 0 else 0.0
    return ShrunkCovariance(centred.x0, sample, shrinkage)


def cholesky_whitening(covariance: Tensor) -> Tensor:
    """W = L⁻¹ with L Lᵀ = covariance (p, p), so that ‖W y‖² = yᵀ covariance⁻¹ y.

    Raises numpy's LinAlgError if the covariance is singular to working precision.
    """
    lower, failed = torch.linalg.cholesky_ex(covariance)
    pivots = lower.diagonal().square()
    rounding = len(covariance) * torch.finfo(covariance.dtype).eps
    if failed or not pivots.min() > rounding * covariance.diagonal().max():
        raise np.linalg.LinAlgError("the covariance is singular to working precision")
    identity = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
    return torch.linalg.solve_triangular(lower, identity, upper=False)


def principal_whitening(
    fit: ShrunkCovariance, keep: Literal["pca", "npca"], explained_variance: float
) -> Tensor:
    """W (k, p) that whitens the principal components kept and drops the others.

    j is the first component, from the largest variance down, with which the share of variance
    exceeds explained_variance in 0..1. pca keeps 0…j, npca j − 1…p − 1: as in the code of Rippel
    et al. both ends belong to either. Unlike there the eigenvalues are those of the shrunk
    covariance of all p coordinates. Directions in which the training vectors do not vary at all,
    of which there are many if n ≤ p, so keep the variance ρ m instead of numerical noise.

    Raises numpy's LinAlgError if a component kept has no variance.
    """
    values, vectors = torch.linalg.eigh(fit.sample)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    share = values.cumsum(0) / values.sum()
    over = (share > explained_variance).nonzero()
    j = int(over[0]) if len(over) else len(values) - 1
    start, stop = (0, j + 1) if keep == "pca" else (max(j - 1, 0), len(values))
    shrunk = (1 - fit.shrinkage) * values + fit.shrinkage * fit.variance
    kept = shrunk[start:stop]
    if not kept.min() > len(values) * torch.finfo(values.dtype).eps * shrunk.max():
        raise np.linalg.LinAlgError("a component has no variance")
    return vectors[:, start:stop].T / kept.sqrt()[:, None]


def chi_square_quantiles(distances: np.ndarray, dimension: int) -> tuple[np.ndarray, np.ndarray]:
    """The points of a quantile plot of squared distances (n,): expected and seen, both ascending.

    If the vectors behind the distances are Gaussian and were not used for the fit, their squared
    Mahalanobis distances follow χ² with `dimension` degrees of freedom and the points lie on the
    diagonal. A look at the fit, not a threshold: calibrate on held-out normal images for that.
    """
    seen = np.sort(np.asarray(distances, dtype=np.float64) ** 2)
    ranks = (np.arange(len(seen)) + 0.5) / len(seen)
    return chi2.ppf(ranks, dimension), seen
