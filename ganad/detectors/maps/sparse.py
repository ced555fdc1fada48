"""A sparse autoencoder with one hidden layer (Ng, "Sparse autoencoder", lecture notes, 2011).

    h = σ(W₁ x + b₁),  x̂ = W₂ h + b₂
    loss = mean ½ ‖x − x̂‖² + w Σ_j KL(ρ ‖ ρ̂_j)

with ρ̂_j the mean of hidden unit j over the batch. On the places of a map it is a 1×1 convolution.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

BATCH = 1024
LEARNING_RATE = 1e-3
SMALLEST = 1e-6
"""Mean activations are kept this far from 0 and 1, where the divergence is infinite."""


@torch.enable_grad()
def train(
    vectors: Tensor, hidden: int, sparsity: float, weight: float, steps: int, seed: int
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """(W₁ (hidden, d), b₁) and (W₂ (d, hidden), b₂) for vectors (n, d), n >= 1; sparsity = ρ,
    weight = w. First weights (Glorot's) and batches are drawn from the seed."""
    generator = torch.Generator().manual_seed(seed)
    width = vectors.shape[1]
    bound = (6 / (hidden + width)) ** 0.5
    first, second = (
        (2 * torch.rand(shape, generator=generator) - 1).mul(bound).to(vectors).requires_grad_()
        for shape in ((hidden, width), (width, hidden))
    )
    # Units begin as sparse as they are to be: the way there from σ(0) = ½ is long.
    start = math.log(sparsity / (1 - sparsity))
    bias = torch.full_like(first[:, 0], start).requires_grad_()
    offset = torch.zeros_like(second[:, 0]).requires_grad_()
    optimizer = torch.optim.Adam([first, bias, second, offset], lr=LEARNING_RATE)
    for _ in range(steps):
        drawn = torch.randint(len(vectors), (BATCH,), generator=generator)
        x = vectors[drawn.to(vectors.device)]
        h = encode(x, first, bias)
        residual = (x - h @ second.T - offset).square().sum(1).mean() / 2
        active = h.mean(0).clamp(SMALLEST, 1 - SMALLEST)
        divergence = (
            sparsity * (sparsity / active).log()
            + (1 - sparsity) * ((1 - sparsity) / (1 - active)).log()
        )
        optimizer.zero_grad()
        (residual + weight * divergence.sum()).backward()
        optimizer.step()
    return (first.detach(), bias.detach()), (second.detach(), offset.detach())


def encode(vectors: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
    """Vectors (..., d) -> h, (..., hidden)."""
    return torch.sigmoid(vectors @ weights.T + bias)
