"""A bounded random sample of the places of normal images, for methods that pass over places many
times.

As in ganad.detectors.statistics.reservoir every place gets a priority, here a random number drawn
from a hash of its image's pixels, and the places with the lowest ones stay. So the sample is the
same whatever shards the images come in, and whatever order shards are merged in.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PlaceSample:
    """The vectors of at most `limit` places, in the order of their priorities."""

    limit: int
    num_images: int
    """Images seen."""
    priorities: np.ndarray
    """uint64 (n,), ascending."""
    vectors: np.ndarray
    """float32 (n, C)."""

    def __len__(self) -> int:
        return len(self.priorities)

    @staticmethod
    def empty(limit: int, width: int) -> PlaceSample:
        """Of no images yet, for vectors of that width."""
        return PlaceSample(limit, 0, np.empty(0, np.uint64), np.empty((0, width), np.float32))

    @staticmethod
    def of(limit: int, hashes: Iterable[int], vectors: np.ndarray) -> PlaceSample:
        """Of images with these hashes (see reservoir.priority) and vectors (n, P, C)."""
        num, places, width = vectors.shape
        drawn = [
            np.random.default_rng(one).integers(2**64, size=places, dtype=np.uint64)
            for one in hashes
        ]
        priorities = np.concatenate([np.empty(0, np.uint64), *drawn])
        whole = PlaceSample(limit, num, priorities, vectors.reshape(-1, width))
        return PlaceSample.merge([whole])

    @staticmethod
    def merge(parts: Iterable[PlaceSample]) -> PlaceSample:
        """The sample of all parts' places together. Needs one part at least."""
        every = list(parts)
        priorities = np.concatenate([part.priorities for part in every])
        kept = np.argsort(priorities, kind="stable")[: every[0].limit]
        return PlaceSample(
            every[0].limit,
            sum(part.num_images for part in every),
            priorities[kept],
            np.concatenate([part.vectors for part in every])[kept],
        )
