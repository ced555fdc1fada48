"""A bounded random sample of the training images' features, for detectors that keep features.

Every image gets a priority, a hash of the seed and its pixels, and the images with the lowest ones
stay ("bottom-k sampling", Cohen, Kaplan: "Summarizing data using bottom-k sketches", PODC 2007).
So the sample is the same whatever pieces the images come in and whatever order the pieces are
merged in, and who merges two samples needs to know nothing of where they began.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from ganad.detectors.statistics.config import SampleConfig
from ganad.detectors.statistics.pooled import LevelT, PooledDetector


@dataclass(frozen=True)
class Reservoir:
    """The features of at most `limit` of num_seen images, in the order of their priorities."""

    limit: int
    num_seen: int
    priorities: np.ndarray
    """uint64 (n,), ascending."""
    vectors: dict[str, np.ndarray]
    """By level, float32 (n, d)."""

    def __len__(self) -> int:
        return len(self.priorities)

    @staticmethod
    def empty(limit: int, dimensions: Mapping[str, int]) -> Reservoir:
        """Of no images yet; dimensions are the widths d by level."""
        vectors = {level: np.empty((0, d), np.float32) for level, d in dimensions.items()}
        return Reservoir(limit, 0, np.empty(0, np.uint64), vectors)

    @staticmethod
    def merge(parts: Iterable[Reservoir]) -> Reservoir:
        """The sample of all parts' images together. Needs one part at least."""
        every = list(parts)
        priorities = np.concatenate([part.priorities for part in every])
        # Equal priorities are equal pixels, so their order is of no account.
        kept = np.argsort(priorities, kind="stable")[: every[0].limit]
        return Reservoir(
            every[0].limit,
            sum(part.num_seen for part in every),
            priorities[kept],
            {
                level: np.concatenate([part.vectors[level] for part in every])[kept]
                for level in every[0].vectors
            },
        )


def priority(image: np.ndarray, seed: int) -> int:
    """0 … 2⁶⁴ − 1 from the pixels of a uint8 image; another seed draws another sample."""
    digest = hashlib.blake2b(f"{seed}:".encode(), digest_size=8)
    digest.update(image.tobytes())
    return int.from_bytes(digest.digest(), "big")


SampleConfigT = TypeVar("SampleConfigT", bound=SampleConfig)


class SampleDetector(
    PooledDetector[SampleConfigT, Reservoir, LevelT], Generic[SampleConfigT, LevelT]
):
    """Statistics are a Reservoir, in plain arrays."""

    num_seen: Tensor
    num_kept: Tensor

    def __init__(self, config: SampleConfigT, load_weights: bool = True) -> None:
        super().__init__(config, load_weights)
        self.register_buffer("num_seen", torch.tensor(0))
        self.register_buffer("num_kept", torch.tensor(0))

    def facts(self) -> dict[str, Any]:
        facts = super().facts()
        if self.num_kept:
            facts |= {"num_images": int(self.num_seen), "num_kept": int(self.num_kept)}
        return facts

    def begin(self, images: Tensor) -> Reservoir:
        return Reservoir.empty(self.config.max_images, self.extractor.dimensions)

    def observe(self, statistics: Reservoir, images: Tensor) -> Reservoir:
        seed = self.config.seed
        for varied in self.passes(images):
            found = list(self.training_features(varied))
            vectors = {
                level: torch.cat([batch[level] for batch in found]).cpu().numpy()
                for level in statistics.vectors
            }
            drawn = [priority(image, seed) for image in varied.cpu().numpy()]
            more = Reservoir(statistics.limit, len(varied), np.array(drawn, np.uint64), vectors)
            statistics = Reservoir.merge([statistics, more])
        return statistics

    def merge(self, parts: Iterable[Reservoir]) -> Reservoir:
        return Reservoir.merge(parts)

    def finish(self, statistics: Reservoir) -> dict[str, Any]:
        for level in self.levels:
            vectors = torch.from_numpy(statistics.vectors[level]).to(self.device)
            centred = vectors.double() - vectors.double().mean(0)
            spread = float(centred.square().sum(1).mean().sqrt())
            size = float(vectors.double().mean(0).norm())
            self.refuse_constant(level, len(vectors), spread, size)
            self.fit_level(level, vectors)
        self.num_seen.fill_(statistics.num_seen)
        self.num_kept.fill_(len(statistics))
        return self.facts()

    @abstractmethod
    def fit_level(self, level: str, vectors: Tensor) -> None:
        """Fit one level to float32 (n, d) on this device, which are not all the same."""


def follow_shapes(
    module: torch.nn.Module, state: Mapping[str, Tensor], prefix: str, *rest: Any
) -> None:
    """A pre-hook of load_state_dict: buffers with a row per training image take on the number of
    rows in the state. Their widths are the network's, and must fit."""
    for name, buffer in list(module.named_buffers(recurse=False)):
        given = state.get(prefix + name)
        if given is not None and given.ndim == buffer.ndim and given.shape[1:] == buffer.shape[1:]:
            setattr(module, name, buffer.new_empty(given.shape))
