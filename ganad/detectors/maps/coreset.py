"""A few vectors that stand for many: greedy k-centre (Gonzalez 1985; Sener, Savarese, ICLR 2018).

Each step takes the vector farthest from those taken. A coreset of coresets is again one (Indyk et
al., "Composable Core-sets for Diversity and Coverage Maximization", PODS 2014): shards are reduced
apart, and their union is reduced again, so memory does not grow with the number of vectors.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

CANDIDATES = 1024
"""The farthest vectors, among which several steps are taken before all distances are updated."""
BLOCK = 16_384
"""Vectors whose distances are updated at a time."""


def greedy(vectors: Tensor, k: int) -> Tensor:
    """Positions (min(k, distinct),) of greedily chosen rows of float vectors (n, d), n >= 1.

    The first is the one farthest from the mean. These are the steps of the plain greedy algorithm,
    in larger strides: as distances only shrink, the next vector is among the farthest candidates as
    long as one of them is at least as far as every vector outside of them was. So the distances of
    all vectors are updated for many chosen ones at once, by one product of matrices.
    """
    squares = vectors.square().sum(1)
    first = (vectors - vectors.mean(0)).square().sum(1).argmax()
    chosen = [int(first)]
    far = _nearest(vectors, squares, vectors[first][None])
    # Of that size are the rounding errors of squared distances.
    rounding = 1e-6 * float(squares.max())
    while len(chosen) < k:
        top, positions = far.topk(min(CANDIDATES, len(far)))
        bound = float(top[-1]) if len(top) < len(far) else 0.0
        candidates = vectors[positions]
        between = torch.cdist(candidates, candidates).square().numpy(force=True)
        distances = top.numpy(force=True).copy()
        taken: list[int] = []
        while len(chosen) + len(taken) < k:
            best = int(distances.argmax())
            if distances[best] <= rounding or (taken and distances[best] < bound):
                break
            taken.append(best)
            np.minimum(distances, between[best], out=distances)
            distances[best] = 0
        if not taken:  # all that is left are copies
            break
        rows = positions[torch.tensor(taken, device=positions.device)]
        chosen += rows.tolist()
        far = torch.minimum(far, _nearest(vectors, squares, vectors[rows]))
        far[rows] = 0
    return torch.tensor(chosen, device=vectors.device)


def _nearest(vectors: Tensor, squares: Tensor, others: Tensor) -> Tensor:
    """Squared distances (n,) of vectors (n, d), whose squared lengths are given, to the nearest of
    others (m, d)."""
    lengths = others.square().sum(1)
    parts = [
        torch.addmm(lengths, block, others.T, alpha=-2).amin(1) for block in vectors.split(BLOCK)
    ]
    return (torch.cat(parts) + squares).clamp_(min=0)
