"""Layers that mix or disturb the images of a batch, for a batch that several ranks share.

torch's own SyncBatchNorm runs on GPUs only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ganad.ranks import Ranks


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
    same state. On a single rank batch-norm is left as it is.
    """
    shared: dict[type[nn.Module], type[nn.Module]] = {nn.Dropout: SharedDropout}
    if ranks.num > 1:
        shared |= {nn.BatchNorm1d: SharedBatchNorm1d, nn.BatchNorm2d: SharedBatchNorm2d}
    for layer in network.modules():
        if type(layer) in shared:
            layer.__class__ = shared[type(layer)]
        if isinstance(layer, SharedDropout | SharedBatchNorm1d | SharedBatchNorm2d):
            layer.ranks = ranks


def _normalise(layer: SharedBatchNorm1d | SharedBatchNorm2d, x: Tensor) -> Tensor:
    """x normalised over all ranks' images and places, in at least float32 as torch's own does."""
    features = x if x.dtype == torch.float64 else x.float()
    over = [0, *range(2, x.ndim)]
    variance, mean = torch.var_mean(features, over, correction=0)
    places = x.new_full((1,), x.numel() // x.shape[1], dtype=features.dtype)
    # Gathered by a sum in which every rank has a row of its own. From the ranks' means and
    # variances, not from sums of squares, which would cancel.
    rows = [torch.zeros_like(torch.cat([mean, variance, places]))] * layer.ranks.num
    rows[layer.ranks.rank] = torch.cat([mean, variance, places])
    gathered = layer.ranks.sum(torch.stack(rows))
    means, variances = gathered[:, :-1].chunk(2, 1)
    total = gathered[:, -1].sum().detach()
    weights = (gathered[:, -1:] / total).detach()
    mean = (weights * means).sum(0)
    variance = (weights * (variances + (means - mean).square())).sum(0)
    _keep_running(layer, mean.detach(), (variance * total / (total - 1)).detach())

    scale = (variance + layer.eps).rsqrt()
    if layer.weight is not None:
        scale = scale * layer.weight
    shift = -mean * scale
    if layer.bias is not None:
        shift = shift + layer.bias
    shape = [1, -1] + [1] * (x.ndim - 2)
    return torch.addcmul(shift.view(shape), features, scale.view(shape)).to(x.dtype)


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
