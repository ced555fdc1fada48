"""k-means: centres drawn by k-means++ (Arthur, Vassilvitskii, SODA 2007), then Lloyd's passes.

A pass needs only the count and the sum of the vectors nearest to each centre. These sums merge, so
shards can be passed over apart and in any order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

BLOCK = 16_384
"""Vectors compared with all centres at a time."""
MAX_PASSES = 100
TOLERANCE = 1e-4
"""Lloyd's passes end when one lowers the cost by less than this share of it."""


@dataclass(frozen=True)
class Sums:
    """What one pass over vectors of width d tells about k centres, in float64."""

    counts: Tensor
    """Vectors nearest to each centre, (k,)."""
    totals: Tensor
    """Their sums, (k, d)."""
    cost: float
    """The squared distances of all vectors to their nearest centres, summed."""

    @staticmethod
    def of(vectors: Tensor, centres: Tensor) -> Sums:
        """Of vectors (n, d) and centres (k, d)."""
        counts = centres.new_zeros(len(centres), dtype=torch.float64)
        totals = torch.zeros_like(centres, dtype=torch.float64)
        cost = 0.0
        for block in vectors.split(BLOCK):
            squared, nearest = squared_distances(block, centres).min(1)
            counts += torch.bincount(nearest, minlength=len(centres))
            totals.index_add_(0, nearest, block.double())
            cost += float(squared.double().sum())
        return Sums(counts, totals, cost)

    @staticmethod
    def merge(parts: Iterable[Sums]) -> Sums:
        """Of all parts together; needs one part at least."""
        total, *rest = parts
        for part in rest:
            total = Sums(
                total.counts + part.counts, total.totals + part.totals, total.cost + part.cost
            )
        return total

    def centres(self, before: Tensor) -> Tensor:
        """The mean of each centre's vectors, (k, d); a centre without any stays as before."""
        means = (self.totals / self.counts.clamp(min=1)[:, None]).to(before)
        return torch.where(self.counts[:, None] > 0, means, before)


def kmeans(vectors: Tensor, k: int, seed: int) -> Tensor:
    """Centres (min(k, distinct), d) of float vectors (n, d), n >= 1; the same at every call."""
    centres = first_centres(vectors, k, seed)
    cost = np.inf
    for _ in range(MAX_PASSES):
        sums = Sums.of(vectors, centres)
        centres = sums.centres(centres)
        if not cost - sums.cost > TOLERANCE * sums.cost:
            break
        cost = sums.cost
    return centres


def first_centres(vectors: Tensor, k: int, seed: int) -> Tensor:
    """min(k, distinct) rows of vectors (n, d): each is drawn with a probability that is
    proportional to its squared distance from the rows drawn before."""
    generator = np.random.default_rng(seed)
    chosen = [int(generator.integers(len(vectors)))]
    far = _squares_to(vectors, chosen[0])
    rounding = 1e-12 * float(far.max())
    while len(chosen) < k:
        far = torch.where(far > rounding, far, 0.0)
        cumulative = far.cumsum(0).numpy(force=True)
        if not cumulative[-1] > 0:  # all that is left are copies
            break
        drawn = generator.random() * cumulative[-1]
        chosen.append(int(np.searchsorted(cumulative, drawn, side="right").clip(max=len(far) - 1)))
        far = torch.minimum(far, _squares_to(vectors, chosen[-1]))
    return vectors[torch.tensor(chosen, device=vectors.device)]


def _squares_to(vectors: Tensor, row: int) -> Tensor:
    """Squared distances of vectors (n, d) to one of them, float64 (n,)."""
    return (vectors - vectors[row]).double().square().sum(1)


def squared_distances(vectors: Tensor, centres: Tensor) -> Tensor:
    """(n, d) and (k, d) -> (n, k). Products of matrices: short distances lose their last digits."""
    lengths = centres.square().sum(1)
    found = torch.addmm(lengths, vectors, centres.T, alpha=-2)
    return found.add_(vectors.square().sum(1, keepdim=True)).clamp_(min=0)
