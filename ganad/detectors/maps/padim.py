"""PaDiM (Defard, Setkov, Loesch, Audigier: "PaDiM: a Patch Distribution Modeling Framework for
Anomaly Detection and Localization", 2020).

At each place p of the maps a Gaussian N(μ_p, Σ_p) of the normal images' vectors, on d channels
drawn at random, with Σ_p = the sample's covariance + ε I (equation 1), and

    M_p(x) = √((x_p − μ_p)ᵀ Σ_p⁻¹ (x_p − μ_p))                            (equation 2)

The heat map is M, resized and smoothed; the image's score is its largest value. Ours: channels are
standardised over all places first, so that ε means the same for every network.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ganad.detectors.base import BatchScores
from ganad.detectors.maps.config import PadimConfig
from ganad.detectors.maps.mapped import MapDetector
from ganad.detectors.maps.places import PlaceMoments
from ganad.detectors.statistics.kept import KeepsFeatures
from ganad.errors import TrainingError
from ganad.features.maps import ChannelMoments


class Padim(MapDetector[PadimConfig, PlaceMoments], KeepsFeatures[PadimConfig, PlaceMoments]):
    """Statistics are the moments at every place. Those of the training stay in the model:

    more = detector.observe(detector.begin(images), images)
    detector.finish(detector.merge([detector.statistics, more]))
    """

    name = "padim"
    summary = "a Gaussian at each place of a frozen ImageNet network's maps; score = worst place"
    paper = "Defard et al., PaDiM: a Patch Distribution Modeling Framework, 2020"
    good_at = "parts that lie alike in all images; small defects; adding normal images later"
    bad_at = "parts that are turned or shifted; images unlike photographs"
    Config = PadimConfig

    chosen: Tensor
    mean: Tensor
    whitening: Tensor
    num_images: Tensor
    place_mean: Tensor
    place_scatter: Tensor

    def __init__(self, config: PadimConfig, load_weights: bool = True) -> None:
        super().__init__(config, load_weights)
        width, places = min(config.num_channels, self.maps.channels), self.maps.grid**2
        generator = torch.Generator().manual_seed(config.seed)
        drawn = torch.randperm(self.maps.channels, generator=generator)[:width]
        self.register_buffer("chosen", drawn.sort().values)
        # Before the fit all is nan, and so are the scores.
        self.register_buffer("mean", torch.full((places, width), torch.nan))
        self.register_buffer("whitening", torch.full((places, width, width), torch.nan))
        empty = PlaceMoments.empty(places, width)
        self.register_buffer("num_images", torch.tensor(0))
        self.register_buffer("place_mean", torch.from_numpy(empty.mean))
        self.register_buffer("place_scatter", torch.from_numpy(empty.scatter))

    @property
    def statistics(self) -> PlaceMoments:
        """The moments that the model was fitted to; empty ones before."""
        mean, scatter = self.place_mean.cpu().numpy(), self.place_scatter.cpu().numpy()
        return PlaceMoments(int(self.num_images), mean, scatter)

    def facts(self) -> dict[str, Any]:
        facts = {**super().facts(), "num_channels": len(self.chosen)}
        return {**facts, "num_images": int(self.num_images)} if self.num_images else facts

    def begin(self, images: Tensor) -> PlaceMoments:
        return PlaceMoments.empty(*self.mean.shape)

    def observe(self, statistics: PlaceMoments, images: Tensor) -> PlaceMoments:
        for maps in self.training_maps(images):
            seen = PlaceMoments.of(self._vectors(maps).cpu().numpy())
            statistics = PlaceMoments.merge([statistics, seen])
        return statistics

    def merge(self, parts: Iterable[PlaceMoments]) -> PlaceMoments:
        return PlaceMoments.merge(parts)

    def finish(self, statistics: PlaceMoments) -> dict[str, Any]:
        if statistics.n < 2:
            raise TrainingError(
                f"{self.name}: {statistics.n} training images are too few for a covariance: "
                f"give at least 2, better some hundred"
            )
        covariance = statistics.covariance()
        variance = np.einsum("pdd->pd", covariance).mean(0) + statistics.mean.var(0)
        std = ChannelMoments(1, statistics.mean.mean(0), variance).usable_std
        scaled = torch.from_numpy(covariance / (std * std[:, None]))
        scaled.diagonal(dim1=1, dim2=2).add_(self.config.epsilon)
        # ‖W (x − μ)‖ = M with W = L⁻¹ and L Lᵀ = Σ; ε keeps Σ regular.
        lower = torch.linalg.cholesky(scaled)
        identity = torch.eye(len(std), dtype=lower.dtype).expand_as(lower)
        inverse = torch.linalg.solve_triangular(lower, identity, upper=False)
        self.whitening.copy_(inverse / torch.from_numpy(std))
        self.mean.copy_(torch.from_numpy(statistics.mean))
        self.num_images.fill_(statistics.n)
        self.place_mean.copy_(torch.from_numpy(statistics.mean))
        self.place_scatter.copy_(torch.from_numpy(statistics.scatter))
        return self.facts()

    def features(self, images: Tensor) -> dict[str, Tensor]:
        return {"places": self._vectors(self.raw_maps(images)).flatten(1)}

    def score_features(self, features: dict[str, Tensor]) -> BatchScores:
        places = self._distances(features["places"].unflatten(1, self.mean.shape))
        return self.summarise(places, None, maps=False)

    def score_places(self, maps: Tensor) -> tuple[Tensor, Tensor | None]:
        return self._distances(self._vectors(maps)), None

    def _distances(self, vectors: Tensor) -> Tensor:
        """The chosen channels by place, (n, P, d) -> Mahalanobis distances (n, g, g)."""
        centred = (vectors - self.mean).transpose(0, 1)
        distances = torch.bmm(centred, self.whitening.transpose(1, 2)).norm(dim=2)
        return distances.T.unflatten(1, (self.maps.grid, self.maps.grid))

    def _vectors(self, maps: Tensor) -> Tensor:
        """Raw maps (n, C, g, g) -> the chosen channels by place, (n, P, d)."""
        return maps[:, self.chosen].flatten(2).transpose(1, 2)
