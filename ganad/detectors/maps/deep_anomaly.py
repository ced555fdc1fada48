"""Deep-Anomaly (Sabokrou, Fayyaz, Fathy, Moayed, Klette: "Deep-Anomaly: Fully Convolutional Neural
Network for Fast Anomaly Detection in Crowded Scenes", CVIU 172, 2018).

The places of an early map share one Gaussian G₁. A place whose Mahalanobis distance d₁ to it is
below α is normal, one above β is abnormal. Between them a sparse autoencoder of 1×1 convolutions
encodes the place, and its distance d₂ to a second Gaussian G₂, of normal codes, decides by φ:

    a(p) = d₁                                     if d₁ <= α or d₁ >= β
    a(p) = α + (β − α) d₂² / (d₂² + φ²)           between them

The paper only decides; a(p) ranks, too, and lies above (α + β) / 2 where d₂ > φ. One in five normal
images is held out: α and β are quantiles of d₁ over their places, φ is one of d₂ over those of them
that lie between α and β. Moments of places merge; the autoencoder is trained on a random sample of
them (see PlaceSample).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ganad.detectors.maps.config import DeepAnomalyConfig
from ganad.detectors.maps.mapped import MapDetector
from ganad.detectors.maps.sample import PlaceSample
from ganad.detectors.maps.sparse import encode, train
from ganad.detectors.statistics.reservoir import priority
from ganad.errors import TrainingError
from ganad.features.moments import Moments, cholesky_whitening, ledoit_wolf, merge

HELD_OUT = 5
"""One in so many images, by a hash of its pixels, gives the thresholds."""


@dataclass(frozen=True)
class Regions:
    """What is known of the normal images' places."""

    moments: Moments
    """Of the images that are not held out."""
    seen: PlaceSample
    """Places of the same images."""
    held_out: PlaceSample


class DeepAnomaly(MapDetector[DeepAnomalyConfig, Regions]):
    """Statistics are the moments of all places and samples of them."""

    name = "deep_anomaly"
    summary = "one Gaussian over all places of an early map, and a second one where it is in doubt"
    paper = "Sabokrou et al., Deep-Anomaly: Fully Convolutional Neural Network, CVIU 2018"
    good_at = "the same look all over the image, as of surfaces; a very small model"
    bad_at = "a normal look in the wrong place; images unlike photographs"
    Config = DeepAnomalyConfig

    mean: Tensor
    whitening: Tensor
    encoder: Tensor
    bias: Tensor
    code_mean: Tensor
    code_whitening: Tensor
    thresholds: Tensor
    num_images: Tensor

    def __init__(self, config: DeepAnomalyConfig, load_weights: bool = True) -> None:
        super().__init__(config, load_weights)
        width, hidden = self.maps.channels, config.hidden
        shapes = {
            "mean": (width,),
            "whitening": (width, width),
            "encoder": (hidden, width),
            "bias": (hidden,),
            "code_mean": (hidden,),
            "code_whitening": (hidden, hidden),
            "thresholds": (3,),  # α, β, φ
        }
        for name, shape in shapes.items():
            # Before the fit numbers are nan, and so are the scores.
            self.register_buffer(name, torch.full(shape, torch.nan))
        self.register_buffer("num_images", torch.tensor(0))

    def facts(self) -> dict[str, Any]:
        facts = super().facts()
        if self.num_images:
            alpha, beta, phi = self.thresholds.tolist()
            thresholds = {"alpha": alpha, "beta": beta, "phi": phi}
            facts |= {"num_images": int(self.num_images), **thresholds}
        return facts

    def begin(self, images: Tensor) -> Regions:
        means = [_vectors(maps).double().mean((0, 1)) for maps in self.training_maps(images)]
        empty = PlaceSample.empty(self.config.max_places, self.maps.channels)
        return Regions(Moments.empty(torch.stack(means).mean(0)), empty, empty)

    def observe(self, statistics: Regions, images: Tensor) -> Regions:
        moments = statistics.moments.to(self.device)
        samples = [statistics.seen, statistics.held_out]
        for inputs, maps in self.training_batches(images):
            vectors = _vectors(maps)
            hashes = [priority(one, self.config.seed) for one in inputs.cpu().numpy()]
            is_held_out = np.array([one % HELD_OUT == 0 for one in hashes])
            for number, those in enumerate((~is_held_out, is_held_out)):
                chosen = np.flatnonzero(those).tolist()
                more = PlaceSample.of(
                    samples[number].limit,
                    [hashes[i] for i in chosen],
                    vectors[chosen].cpu().numpy(),
                )
                samples[number] = PlaceSample.merge([samples[number], more])
            moments = moments.add(vectors[np.flatnonzero(~is_held_out).tolist()].flatten(0, 1))
        return Regions(moments, *samples)

    def merge(self, parts: Iterable[Regions]) -> Regions:
        every = list(parts)
        return Regions(
            merge(part.moments for part in every),
            PlaceSample.merge(part.seen for part in every),
            PlaceSample.merge(part.held_out for part in every),
        )

    def finish(self, statistics: Regions) -> dict[str, Any]:
        config, num_held_out = self.config, statistics.held_out.num_images
        num_seen = statistics.seen.num_images
        if not (num_seen and num_held_out):
            raise TrainingError(
                f"{self.name}: {num_seen + num_held_out} training images are too few to hold one "
                f"in {HELD_OUT} out: give at least 20, better some hundred"
            )
        self._take("mean", "whitening", statistics.moments.to(self.device))
        whitened = self._whitened(self._places(statistics.seen))
        (encoder, bias), _ = train(
            whitened,
            config.hidden,
            config.sparsity,
            config.sparsity_weight,
            config.steps,
            config.seed,
        )
        self.encoder.copy_(encoder)
        self.bias.copy_(bias)
        codes = encode(whitened, self.encoder, self.bias)
        self._take("code_mean", "code_whitening", Moments.empty(codes.mean(0)).add(codes))
        held_out = self._places(statistics.held_out)
        first, second = (one.double().numpy(force=True) for one in self._distances(held_out))
        alpha, beta = np.quantile(first, [config.alpha, config.beta])
        doubtful = (first > alpha) & (first < beta)
        phi = np.quantile(second[doubtful] if doubtful.any() else second, config.alpha)
        self.thresholds.copy_(torch.tensor([alpha, beta, phi]))
        self.num_images.fill_(num_seen + num_held_out)
        return self.facts()

    def score_places(self, maps: Tensor) -> tuple[Tensor, Tensor | None]:
        first, second = self._distances(_vectors(maps))
        alpha, beta, phi = self.thresholds
        ratio = second.square() / (second.square() + phi.square())
        doubtful = (first > alpha) & (first < beta)
        places = torch.where(doubtful, alpha + (beta - alpha) * ratio, first)
        return places.view(maps.shape[0], self.maps.grid, self.maps.grid), None

    def _distances(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """(..., C) -> d₁ and d₂, each (...)."""
        whitened = self._whitened(vectors)
        codes = encode(whitened, self.encoder, self.bias)
        second = ((codes - self.code_mean) @ self.code_whitening.T).norm(dim=-1)
        return whitened.norm(dim=-1), second

    def _whitened(self, vectors: Tensor) -> Tensor:
        return (vectors - self.mean) @ self.whitening.T

    def _places(self, sample: PlaceSample) -> Tensor:
        return torch.from_numpy(sample.vectors).to(self.device)

    def _take(self, mean: str, whitening: str, moments: Moments) -> None:
        """Fit one of the Gaussians. Raises TrainingError if its covariance has no inverse."""
        shrunk = ledoit_wolf(moments)
        try:
            self.get_buffer(whitening).copy_(cholesky_whitening(shrunk.matrix))
        except np.linalg.LinAlgError:
            raise TrainingError(
                f"{self.name}: the covariance of the training images' places has no inverse: give "
                f"images that differ, or choose other backbone.levels"
            ) from None
        self.get_buffer(mean).copy_(shrunk.mean)


def _vectors(maps: Tensor) -> Tensor:
    """Raw maps (n, C, g, g) -> vectors by place, (n, P, C)."""
    return maps.flatten(2).transpose(1, 2)
