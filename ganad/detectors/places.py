"""Scores of detectors that see maps: terms by place, of which the worst places count."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganad.detectors.base import BatchScores

CONSTANT = 1e-12
"""A term that spreads less than this over normal images is not divided by its spread."""


def worst(places: Tensor, fraction: float) -> Tensor:
    """Terms by place (n, h, w) -> (n,) in float64: the mean over that fraction of the places, the
    worst ones, one at least."""
    by_image = places.double().flatten(1)
    num = max(1, math.ceil(fraction * by_image.shape[1]))
    return by_image.topk(num, dim=1).values.mean(1)


def squared(a: Tensor, b: Tensor) -> Tensor:
    """(a − b)² averaged over channels: n×c×h×w -> n×h×w."""
    return (a.float() - b.float()).square().mean(1)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """1 − cos of the vectors at each place: n×c×h×w -> n×h×w, in 0..2."""
    return 1 - F.cosine_similarity(a.float(), b.float(), dim=1)


class TermScale(nn.Module):
    """Mean and spread of each term over normal images; 0 and 1 until they are fitted."""

    mean: Tensor
    spread: Tensor

    def __init__(
        self, names: Sequence[str], counted: Sequence[str], mapped: Sequence[str] | None = None
    ) -> None:
        """names: of all terms; counted: of those that make the score; mapped: of those that make
        maps, left out = the same."""
        super().__init__()
        self.names, self.counted = tuple(names), tuple(counted)
        self.mapped = self.counted if mapped is None else tuple(mapped)
        self.register_buffer("mean", torch.zeros(len(names), dtype=torch.float64))
        self.register_buffer("spread", torch.ones(len(names), dtype=torch.float64))

    def fit(self, terms: Mapping[str, np.ndarray]) -> None:
        """Take mean and spread from the terms of normal images, float64 (n,) each, n >= 1."""
        for number, name in enumerate(self.names):
            self.mean[number] = float(np.mean(terms[name]))
            self.spread[number] = usable(float(np.std(terms[name])))

    def average(self, scales: Sequence[TermScale]) -> None:
        """Take the mean of the means, and of the spreads, of other scales of the same terms."""
        self.mean.copy_(torch.stack([one.mean for one in scales]).mean(0))
        self.spread.copy_(torch.stack([one.spread for one in scales]).mean(0))

    def score(self, places: Mapping[str, Tensor], fraction: float, side: int | None) -> BatchScores:
        """Terms by place, each (n, h, w) with sides of its own -> scores, and maps of that side.

        score = Σ (term − mean) / spread over the counted terms. A map is such a sum over the
        mapped terms at each place, resized: bilinear between places.
        """
        terms = {name: worst(places[name], fraction) for name in self.names}
        score = torch.stack([self._scaled(name, terms[name]) for name in self.counted]).sum(0)
        if side is None:
            return BatchScores(score, terms)
        scaled = (self._scaled(name, places[name].double()) for name in self.mapped)
        return BatchScores(score, terms, torch.stack([resized(s, side) for s in scaled]).sum(0))

    def _scaled(self, name: str, values: Tensor) -> Tensor:
        number = self.names.index(name)
        return (values - self.mean[number]) / self.spread[number]


def usable(spread: float) -> float:
    """The spread, or 1 for a term that does not vary."""
    return spread if spread > CONSTANT else 1.0


def resized(places: Tensor, side: int) -> Tensor:
    """Places (n, h, w) -> maps (n, side, side): bilinear between places."""
    shape = (side, side)
    return F.interpolate(places[:, None], shape, mode="bilinear", align_corners=False)[:, 0]
