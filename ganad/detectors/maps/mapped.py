"""What the detectors over maps of a frozen network have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Generic, Self, TypeVar

import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor
from torch.nn import functional

from ganad.batch.augment_fit import passes
from ganad.batch.fixed import fixed
from ganad.detectors.base import BatchScores, StatisticsDetector, StatisticsT
from ganad.detectors.maps.config import MapConfig
from ganad.errors import TrainingError
from ganad.features.maps import FeatureMaps

MapConfigT = TypeVar("MapConfigT", bound=MapConfig)


class MapDetector(StatisticsDetector[MapConfigT, StatisticsT], Generic[MapConfigT, StatisticsT]):
    """A frozen network, and something fitted to its maps that scores every place."""

    def __init__(self, config: MapConfigT, load_weights: bool = True) -> None:
        super().__init__(config)
        self.maps = FeatureMaps(
            config.backbone, config.input_size, config.seed, load_weights, config.input_key
        )
        spread = spreading(self.maps.grid, config.input_size, config.blur)
        self.register_buffer("spread", spread, persistent=False)

    spread: Tensor

    @classmethod
    def from_saved(cls, config: MapConfigT) -> Self:
        """Without the file or hub that the weights came from: they are part of the state."""
        return cls(config, load_weights=False)

    def facts(self) -> dict[str, Any]:
        extractor = self.maps.extractor
        return {
            "weights": extractor.source,
            "weights_digest": extractor.digest,
            "levels": list(extractor.dimensions),
            "grid": self.maps.grid,
        }

    @abstractmethod
    def score_places(self, maps: Tensor) -> tuple[Tensor, Tensor | None]:
        """Raw maps (n, C, g, g) -> the scores of their places, float32 (n, g, g), and those of the
        images, (n,), or None: the largest of their smoothed heat map."""

    def raw_maps(self, images: Tensor) -> Tensor:
        """uint8 (n, c, h, w) -> raw maps, float32 (n, C, g, g)."""
        prepared = self.prepare(images)
        with torch.no_grad(), self.autocast():
            return self.maps(prepared)

    def training_maps(self, images: Tensor) -> Iterator[Tensor]:
        """The raw maps of training_batches."""
        return (maps for _, maps in self.training_batches(images))

    def training_batches(self, images: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Consecutive batches of uint8 training images, each varied as configured and cut into
        windows if any, with their raw maps. Raises TrainingError if a map is not finite.

        Batches are filled up as for scoring: a fit then does not depend, in the last bits, on how
        the training images were divided.
        """
        for varied in passes(images, self.config.augment, self.config.seed):
            for some in self.patches(varied).split(self.scoring_batch):
                batch, num = fixed(some, self.scoring_batch)
                found = self.raw_maps(batch)[:num]
                if not found.isfinite().all():
                    raise TrainingError(
                        f"{self.name}: the network gives training images maps that are not finite: "
                        f"set precision to float32 or use other weights"
                    )
                yield some, found

    def score_batch(self, images: Tensor, ids: Sequence[str], maps: bool) -> BatchScores:
        places, score = self.score_places(self.raw_maps(images))
        return self.summarise(places, score, maps)

    def summarise(self, places: Tensor, score: Tensor | None, maps: bool) -> BatchScores:
        """What score_places gives -> the scores of the images, with heat maps if asked for."""
        if self.config.image_score == "mean":
            score = places.mean((1, 2))
        if score is not None and not maps:
            return BatchScores(score)
        heat = self.spread @ places @ self.spread.T
        score = heat.amax((1, 2)) if score is None else score
        return BatchScores(score, maps=heat if maps else None)


def spreading(grid: int, size: int, blur: float) -> Tensor:
    """A, float32 (size, grid): A M Aᵀ is the map M (grid, grid) resized bilinearly to size pixels
    and smoothed by a Gaussian of blur pixels."""
    rows = functional.interpolate(torch.eye(grid)[None], size, mode="linear", align_corners=False)
    matrix = rows[0].T.numpy()
    if blur:
        matrix = gaussian_filter1d(matrix, blur, axis=0, mode="reflect")
    return torch.from_numpy(matrix).contiguous()
