"""PatchCore (Roth, Pemula, Zepeda, Schölkopf, Brox, Gehler: "Towards Total Recall in Industrial
Anomaly Detection", CVPR 2022).

A memory M holds a coreset of the vectors at all places of the normal images' maps. The heat map of
an image is the distance of each place's vector to the nearest entry, resized and smoothed; with the
worst place x* and its nearest entry m* the image's score is (equation 7)

    s = (1 − exp ‖x* − m*‖ / Σ_{m ∈ N_b(m*)} exp ‖x* − m‖) · ‖x* − m*‖

over the b entries nearest to m*, m* among them. Ours: channels are standardised, so that stages
count by their number of channels and not by the size of their values, and the coreset is gathered
shard by shard (see coreset), so that memory does not grow with the number of images.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ganad.detectors.maps.config import PatchcoreConfig
from ganad.detectors.maps.coreset import greedy
from ganad.detectors.maps.mapped import MapDetector
from ganad.detectors.statistics.reservoir import follow_shapes
from ganad.features.maps import ChannelMoments

GATHERED = 4
"""Candidates gathered before they are reduced, in sizes of the memory."""
QUERIES = 256
"""Places compared at a time: their distances to all entries fit a processor's cache better."""


@dataclass(frozen=True)
class Candidates:
    """Vectors that the memory will be chosen from."""

    channels: ChannelMoments
    """Of the first training images: what candidates are standardised by."""
    num_images: int
    vectors: np.ndarray
    """Standardised, float32 (n, C)."""


class Patchcore(MapDetector[PatchcoreConfig, Candidates]):
    """Statistics are candidates for the memory."""

    name = "patchcore"
    summary = "distance of each place to a memory of normal places, in a frozen network's maps"
    paper = "Roth et al., Towards Total Recall in Industrial Anomaly Detection, CVPR 2022"
    good_at = "small defects; parts that are turned or shifted; few normal images"
    bad_at = "anomalies among the training images; images unlike photographs"
    Config = PatchcoreConfig

    memory: Tensor
    num_images: Tensor

    def __init__(self, config: PatchcoreConfig, load_weights: bool = True) -> None:
        super().__init__(config, load_weights)
        self.register_buffer("memory", torch.empty(0, self.maps.channels))
        self.register_buffer("num_images", torch.tensor(0))
        self.register_load_state_dict_pre_hook(follow_shapes)

    def facts(self) -> dict[str, Any]:
        facts = super().facts()
        if self.num_images:
            facts |= {"num_images": int(self.num_images), "num_entries": len(self.memory)}
        return facts

    def begin(self, images: Tensor) -> Candidates:
        parts = [ChannelMoments.of(maps) for maps in self.training_maps(images)]
        vectors = np.empty((0, self.maps.channels), np.float32)
        return Candidates(ChannelMoments.merge(parts), 0, vectors)

    def observe(self, statistics: Candidates, images: Tensor) -> Candidates:
        self.maps.fit(statistics.channels)
        gathered = replace(statistics, num_images=statistics.num_images + len(images))
        for maps in self.training_maps(images):
            vectors = self._vectors(maps).flatten(0, 1).cpu().numpy()
            joined = np.concatenate([gathered.vectors, vectors])
            gathered = self._reduced(replace(gathered, vectors=joined), GATHERED)
        return self._reduced(gathered, 1)

    def merge(self, parts: Iterable[Candidates]) -> Candidates:
        total, *rest = parts
        for part in rest:
            joined = Candidates(
                total.channels,
                total.num_images + part.num_images,
                np.concatenate([total.vectors, part.vectors]),
            )
            total = self._reduced(joined, GATHERED)
        return total

    def finish(self, statistics: Candidates) -> dict[str, Any]:
        self.maps.fit(statistics.channels)
        self.memory = torch.from_numpy(self._reduced(statistics, 1).vectors).to(self.device)
        self.num_images.fill_(statistics.num_images)
        return self.facts()

    def score_places(self, maps: Tensor) -> tuple[Tensor, Tensor | None]:
        vectors = self._vectors(maps)
        if len(self.memory) == 0:  # before the fit
            places = vectors.new_full(vectors.shape[:2], torch.nan)
        else:
            places = self._nearest(vectors.flatten(0, 1)).unflatten(0, vectors.shape[:2])
        worst = vectors[torch.arange(len(vectors), device=vectors.device), places.argmax(1)]
        side = self.maps.grid
        return places.unflatten(1, (side, side)), self._weighted(worst)

    def _nearest(self, vectors: Tensor) -> Tensor:
        """Vectors (q, C) -> their distances to the nearest entries, (q,)."""
        # ‖q − m‖² = ‖q‖² + [q, 1]·[−2 m, ‖m‖²], of which the first part does not rank: one product
        # of matrices, whose result no further pass has to add to.
        lengths = self.memory.square().sum(1, keepdim=True)
        entries = torch.cat([-2 * self.memory, lengths], 1).T
        extended = torch.cat([vectors, vectors.new_ones(len(vectors), 1)], 1)
        ranks = torch.cat([(some @ entries).amin(1) for some in extended.split(QUERIES)])
        return (ranks + vectors.square().sum(1)).clamp(min=0).sqrt()

    def _weighted(self, worst: Tensor) -> Tensor:
        """Vectors (n, C) of the images' worst places -> the images' scores, (n,)."""
        if len(self.memory) == 0:
            return worst.new_full((len(worst),), torch.nan)
        num = min(self.config.neighbours, len(self.memory))
        near = torch.cdist(worst, self.memory).topk(num, dim=1, largest=False).indices
        entries = near.gather(1, self._exact(worst, near).argmin(1, keepdim=True))[:, 0]
        between = torch.cdist(self.memory[entries], self.memory)
        around = between.topk(num, dim=1, largest=False).indices
        nearest = self._exact(worst, entries[:, None])
        shares = (self._exact(worst, around) - nearest).exp().sum(1)
        score = (1 - 1 / shares) * nearest[:, 0] if num > 1 else nearest[:, 0]
        return score.where(worst.isfinite().all(1), torch.nan)

    def _exact(self, vectors: Tensor, entries: Tensor) -> Tensor:
        """Distances (n, k) of vectors (n, C) to entries (n, k) of the memory, in float64. They are
        measured by differences: products lose the digits of short distances."""
        return (vectors[:, None].double() - self.memory[entries].double()).norm(dim=2)

    def _vectors(self, maps: Tensor) -> Tensor:
        """Raw maps (n, C, g, g) -> standardised vectors by place, (n, P, C)."""
        return self.maps.standardise(maps).flatten(2).transpose(1, 2)

    def _reduced(self, candidates: Candidates, sizes: int) -> Candidates:
        """Candidates reduced to one memory's size where they are more than that many sizes."""
        if len(candidates.vectors) <= sizes * self.config.entries:
            return candidates
        vectors = torch.from_numpy(candidates.vectors).to(self.device)
        chosen = greedy(vectors, self.config.entries).cpu().numpy()
        return replace(candidates, vectors=candidates.vectors[chosen])
