"""Layers that mix or disturb the images of a batch, for a batch that several ranks share.

torch's own SyncBatchNorm runs on GPUs only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ganad.batch.ranks import Ranks


class SharedBatchNorm1d(nn.BatchNorm1d):
    """BatchNorm1d whose statistics in training are those of the whole batch over all ranks."""

    ranks: Ranks

    def forward(self, input: Tensor) -> Tensor:
        return _normalise(self, input) if self.training else super().forward(input)


class SharedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose statistics in training are those of the whole batch over all ranks."""

    ranks: Ranks

    def forward(self, input: Tensor) -> Tensor:
        return _normalise(self, input) if self.training else super().forward(input)


class SharedDropout(nn.Dropout):
    """Dropout whose mask in training is this rank's part of the whole batch's."""

    ranks: Ranks

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return input
        drawn = self.ranks.uniform(*input.shape, device=input.device)
        return input * (drawn >= self.p).to(input.dtype).div_(1 - self.p)


def share_batch(network: nn.Module, ranks: Ranks) -> None:
    """Make every batch-norm and dropout of a network one of these.

    In place, by their class: they stay the objects that optimisers and names refer to, with the
    same state. On a single rank batch-norm is left as it is, and a frozen network always.
    """
    shared: dict[type[nn.Module], type[nn.Module]] = {nn.Dropout: SharedDropout}
    if ranks.num > 1:
        shared |= {nn.BatchNorm1d: SharedBatchNorm1d, nn.BatchNorm2d: SharedBatchNorm2d}
    for layer in _trained(network):
        if type(layer) in shared:
            layer.__class__ = shared[type(layer)]
        if isinstance(layer, SharedDropout | SharedBatchNorm1d | SharedBatchNorm2d):
            layer.ranks = ranks


def _trained(network: nn.Module) -> Iterator[nn.Module]:
    """The network and its parts, without those that have weights and train none of them."""
    weights = [*network.parameters()]
    if weights and not any(weight.requires_grad for weight in weights):
        return
    yield network
    for part in network.children():
        yield from _trained(part)


def _normalise(layer: SharedBatchNorm1d | SharedBatchNorm2d, x: Tensor) -> Tensor:
    """x normalised over all ranks' images and places."""
    if layer.affine:
        return _Normalise.apply(x, layer.weight, layer.bias, layer)
    assert layer.running_mean is not None
    one = torch.ones_like(layer.running_mean)
    return _Normalise.apply(x, one, torch.zeros_like(one), layer)


class _Normalise(torch.autograd.Function):
    """torch's own kernels, with statistics and sums of gradients that all ranks share.

    Written with autograd's elementwise operations it took ten times as long. It has no second
    derivative: a critic with a gradient penalty must not mix the images of a batch anyway.
    """

    @staticmethod
    def forward(
        context: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        layer: SharedBatchNorm1d | SharedBatchNorm2d,
    ) -> Tensor:
        mean, variance, total = _statistics(x, weight.dtype, layer.ranks)
        _keep_running(layer, mean, variance * total / (total - 1))
        context.save_for_backward(x, weight, mean, variance, total)
        context.layer = layer
        return torch.native_batch_norm(x, weight, bias, mean, variance, False, 0.0, layer.eps)[0]

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, variance, total = context.saved_tensors
        layer = context.layer
        # As if the statistics were constants. The sums are over this rank's images, as gradients
        # of weights are on every rank: gradient · x̂ for the weight, gradient for the bias.
        by_x, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, mean, variance, None, None, False, layer.eps, [True, True, True]
        )
        # What every image loses by its part in the statistics is a line in x̂.
        slope, level = layer.ranks.sum(torch.stack([by_weight, by_bias])) / total
        scale = weight * (variance + layer.eps).rsqrt()
        line = torch.native_batch_norm(
            x, scale * slope, scale * level, mean, variance, False, 0.0, layer.eps
        )[0]
        return by_x.sub_(line), by_weight, by_bias, None


def _statistics(x: Tensor, dtype: torch.dtype, ranks: Ranks) -> tuple[Tensor, Tensor, Tensor]:
    """(c,) mean and variance of all ranks' images and places, and the number of these, (1,)."""
    # Of this rank; what would be the running statistics only says the precision to sum in.
    ignored = x.new_zeros(x.shape[1], dtype=dtype)
    mean, variance = torch.batch_norm_update_stats(x, ignored, ignored.clone(), 0.0)
    places = x.new_full((1,), x.numel() // x.shape[1], dtype=dtype)
    # Gathered by a sum in which every rank has a row of its own. From the ranks' means and
    # variances, not from sums of squares, which would cancel.
    row = torch.cat([mean, variance, places])
    rows = row.new_zeros(ranks.num, len(row))
    rows[ranks.rank] = row
    gathered = ranks.sum(rows)
    means, variances = gathered[:, :-1].chunk(2, 1)
    total = gathered[:, -1].sum()
    weights = gathered[:, -1:] / total
    mean = (weights * means).sum(0)
    return mean, (weights * (variances + (means - mean).square())).sum(0), total


@torch.no_grad()
def _keep_running(layer: nn.BatchNorm1d | nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
    """Move the running statistics, as torch's own batch-norm does."""
    assert layer.running_mean is not None
    assert layer.running_var is not None
    assert layer.num_batches_tracked is not None
    assert layer.momentum is not None, "a cumulative average is not in use here"
    layer.running_mean.lerp_(mean.to(layer.running_mean), layer.momentum)
    layer.running_var.lerp_(variance.to(layer.running_var), layer.momentum)
    layer.num_batches_tracked += 1
