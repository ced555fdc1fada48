"""Where in an image the score of its pooled features comes from.

A pooled vector f is the mean over places p of a map F(p), so to first order a score A(f) is the
mean over places of

    a(p) = A(f) + ∇A(f) · (F(p) − f)

and the map a has the score as its mean, exactly. For a Mahalanobis distance M this is
(F(p) − μ)ᵀ Σ⁻¹ (f − μ) / M, for a distance to a neighbour v likewise the share of p in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ganad.features.backbone import pool
from ganad.features.maps import on_grid

Terms = Callable[[dict[str, Tensor]], dict[str, Tensor]]
"""Pooled features (n, d) by level -> scores (n,) by level, differentiable, whatever the level."""


def heat_maps(
    maps: Mapping[str, Sequence[Tensor]], terms: Terms, size: int
) -> tuple[dict[str, Tensor], Tensor]:
    """Maps of an image by level (see FeatureExtractor.maps) -> the terms of its pooled features,
    (n,) by level, and for each level's term its heat map; their sum, float32 (n, size, size).

    Branches without places (vectors, tokens in no square) spread their share evenly.
    """
    with torch.enable_grad():
        vectors = {level: pool(branches).requires_grad_() for level, branches in maps.items()}
        found = terms(vectors)
        gradients = torch.autograd.grad(
            [term.sum() for term in found.values()], [*vectors.values()]
        )
    scores = {level: term.detach() for level, term in found.items()}
    total = vectors[next(iter(vectors))].new_zeros(())
    for (level, branches), gradient in zip(maps.items(), gradients, strict=True):
        spread = scores[level].float()[:, None, None]
        widths = [branch.shape[1] for branch in branches]
        for branch, weights in zip(branches, gradient.split(widths, 1), strict=True):
            share = torch.einsum("ndhw,nd->nhw", branch.float(), weights)[:, None]
            share = share - share.mean((2, 3), keepdim=True)
            spread = spread + (on_grid(share, size)[:, 0] if share.shape[2] > 1 else 0)
        total = total + spread
    return scores, total
