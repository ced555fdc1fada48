"""An exponential moving average of a network, to score with what training leaves behind."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

STATISTICS = ("running_mean", "running_var")


class Average(nn.Module):
    """A copy of a network that follows it slowly: weights and batch-norm statistics alike.

    Always in eval mode and without gradients; part of the state_dict, so that a saved model scores
    the same. Other buffers (counters, the unit vectors of spectral norm) are copied as they are: a
    mean of unit vectors is no unit vector.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.decay = decay
        self.eval()

    def train(self, mode: bool = True) -> Average:
        return super().train(False)

    def forward(self, *inputs: Any) -> Any:
        return self.network(*inputs)

    @torch.no_grad()
    def update(self, network: nn.Module, number: int) -> None:
        """average ← δ·average + (1 − δ)·network after step number, counted from 0.

        δ = min(decay, (1 + number)/(10 + number)), as tf.train.ExponentialMovingAverage does when
        told the step: a short run must not be scored by its first, random weights.
        """
        weight = 1 - min(self.decay, (1 + number) / (10 + number))
        for mine, theirs in zip(self.network.parameters(), network.parameters(), strict=True):
            mine.lerp_(theirs, weight)
        theirs_by_name = dict(network.named_buffers())
        for name, buffer in self.network.named_buffers():
            if name.endswith(STATISTICS):
                buffer.lerp_(theirs_by_name[name], weight)
            else:
                buffer.copy_(theirs_by_name[name])
