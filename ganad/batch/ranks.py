"""The ranks of a training run, which share every batch: what they compute and draw together.

N ranks that follow it make the same steps as one, to rounding: what a step knows of its batch (a
mean of losses, the statistics of batch-norm, a mean of features) is of the whole batch, and noise
is drawn for the whole batch by all ranks alike, each of which keeps its own images' part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class _Sum(torch.autograd.Function):
    """The sum over all ranks. What each rank loses by its part is the sum of what all lose."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        total = value.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return _Sum.apply(gradient)


@dataclass
class Ranks:
    """This process among those that train together; rank r of num has the images r, r + num, …"""

    rank: int = 0
    num: int = 1
    num_images: int = 0
    """In the present batch over all ranks; set by the training loop, wanted if num > 1."""

    @property
    def share(self) -> float:
        """The part of the present batch that is this rank's, in 0..1."""
        return len(range(self.rank, self.num_images, self.num)) / self.num_images

    def sum(self, value: Tensor) -> Tensor:
        """Over all ranks, differentiable; every rank must call it in the same order."""
        return _Sum.apply(value) if self.num > 1 else value

    def mean(self, value: Tensor) -> Tensor:
        """Of a value that each rank has as the mean over its own images, differentiable."""
        return self.sum(value * self.share) if self.num > 1 else value

    def batch_mean(self, values: Tensor) -> Tensor:
        """(n, ...) of this rank's images -> (...), the mean over the whole batch."""
        return self.mean(values.mean(0))

    def normal(self, num: int, *shape: int, device: torch.device | str = "cpu") -> Tensor:
        """N(0, 1), (num, *shape), for num images of this rank."""
        return self._mine(torch.randn, num, shape, device)

    def uniform(self, num: int, *shape: int, device: torch.device | str = "cpu") -> Tensor:
        """U(0, 1), (num, *shape)."""
        return self._mine(torch.rand, num, shape, device)

    def _mine(
        self,
        draw: Callable[..., Tensor],
        num: int,
        shape: tuple[int, ...],
        device: torch.device | str,
    ) -> Tensor:
        if self.num == 1:
            return draw(num, *shape, device=device)
        own = len(range(self.rank, self.num_images, self.num))
        # A network may be given several batches at once, one behind the other.
        assert num % own == 0, "not a whole number of batches"
        whole = draw(num // own, self.num_images, *shape, device=device)
        return whole[:, self.rank :: self.num].flatten(0, 1)
