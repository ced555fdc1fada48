"""Self-similarity to a dictionary (Napoletano, Piccoli, Schettini: "Anomaly Detection in
Nanofibrous Materials by CNN-Based Self-Similarity", Sensors 18, 2018).

Each place of one stage's map describes a patch of the image. Its vector is divided by its L1 norm
and projected to the principal components that hold 95 % of the variance over normal places. A
dictionary holds the K centres of a k-means of normal places, and

    a(p) = the mean distance of place p to the m nearest entries

is the heat map. The paper crops each patch and runs the network on it; here the network runs once
on the image. The moments for the components are those of all places, and merge. The passes of
k-means go over a random sample of the places (see PlaceSample).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ganad.detectors.maps.config import DictionaryConfig
from ganad.detectors.maps.mapped import MapDetector
from ganad.detectors.maps.sample import PlaceSample
from ganad.detectors.statistics.reservoir import follow_shapes, priority
from ganad.errors import TrainingError
from ganad.features.kmeans import kmeans, squared_distances
from ganad.features.moments import Moments, merge


@dataclass(frozen=True)
class Patches:
    """What is known of the normal images' places."""

    moments: Moments
    """Of all vectors, divided by their norms."""
    sample: PlaceSample


class Dictionary(MapDetector[DictionaryConfig, Patches]):
    """Statistics are the moments of all places and a sample of them."""

    name = "dictionary"
    summary = "distance of each place to a dictionary of normal patches, in a frozen network's map"
    paper = "Napoletano, Piccoli, Schettini, CNN-Based Self-Similarity, Sensors 2018"
    good_at = "textures; a small model: some hundred vectors"
    bad_at = "defects that look like a rare normal patch; images unlike photographs"
    Config = DictionaryConfig

    mean: Tensor
    axes: Tensor
    entries: Tensor
    num_images: Tensor

    def __init__(self, config: DictionaryConfig, load_weights: bool = True) -> None:
        super().__init__(config, load_weights)
        width = self.maps.channels
        # Before the fit numbers are nan, and so are the scores.
        self.register_buffer("mean", torch.full((width,), torch.nan))
        self.register_buffer("axes", torch.full((width, width), torch.nan))
        self.register_buffer("entries", torch.full((1, width), torch.nan))
        self.register_buffer("num_images", torch.tensor(0))
        self.register_load_state_dict_pre_hook(follow_shapes)

    def facts(self) -> dict[str, Any]:
        facts = super().facts()
        if self.num_images:
            kept = int(self.axes.any(1).sum())
            facts |= {
                "num_images": int(self.num_images),
                "num_components": kept,
                "num_entries": len(self.entries),
            }
        return facts

    def begin(self, images: Tensor) -> Patches:
        means = [self._vectors(maps).double().mean((0, 1)) for maps in self.training_maps(images)]
        sample = PlaceSample.empty(self.config.max_places, self.maps.channels)
        return Patches(Moments.empty(torch.stack(means).mean(0)), sample)

    def observe(self, statistics: Patches, images: Tensor) -> Patches:
        moments, sample = statistics.moments.to(self.device), statistics.sample
        for seen, maps in self.training_batches(images):
            vectors = self._vectors(maps)
            moments = moments.add(vectors.flatten(0, 1))
            hashes = [priority(one, self.config.seed) for one in seen.cpu().numpy()]
            more = PlaceSample.of(sample.limit, hashes, vectors.cpu().numpy())
            sample = PlaceSample.merge([sample, more])
        return Patches(moments, sample)

    def merge(self, parts: Iterable[Patches]) -> Patches:
        every = list(parts)
        return Patches(
            merge(part.moments for part in every), PlaceSample.merge(p.sample for p in every)
        )

    def finish(self, statistics: Patches) -> dict[str, Any]:
        moments = statistics.moments.about(statistics.moments.mean)
        values, vectors = torch.linalg.eigh(moments.s2.to(self.device))
        values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
        total = float(values.sum())
        if not total > 0:
            raise TrainingError(
                f"{self.name}: all places of the training images are alike: give images that "
                f"differ, or choose other backbone.levels"
            )
        reached = values.cumsum(0) / total >= self.config.explained_variance
        kept = int(reached.int().argmax()) + 1 if reached.any() else len(values)
        self.mean.copy_(moments.x0)
        # Rows of zeros for the components dropped: shapes then do not depend on the data.
        self.axes.zero_()[:kept] = vectors[:, :kept].T
        sample = torch.from_numpy(statistics.sample.vectors).to(self.device)
        self.entries = kmeans(self._project(sample), self.config.entries, self.config.seed)
        self.num_images.fill_(statistics.sample.num_images)
        return self.facts()

    def score_places(self, maps: Tensor) -> tuple[Tensor, Tensor | None]:
        vectors = self._project(self._vectors(maps))
        distances = squared_distances(vectors.flatten(0, 1), self.entries).sqrt()
        num = min(self.config.neighbours, len(self.entries))
        places = distances.topk(num, dim=1, largest=False).values.mean(1)
        return places.view(maps.shape[0], self.maps.grid, self.maps.grid), None

    def _project(self, vectors: Tensor) -> Tensor:
        """(..., C) -> coordinates along the components kept, (..., C)."""
        return (vectors - self.mean) @ self.axes.T

    def _vectors(self, maps: Tensor) -> Tensor:
        """Raw maps (n, C, g, g) -> vectors by place divided by their L1 norms, (n, P, C)."""
        return functional.normalize(maps.flatten(2).transpose(1, 2), p=1, dim=2)
