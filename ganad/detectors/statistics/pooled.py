"""What the detectors over pooled features of a frozen network have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Generic, Self, TypeVar

import torch
from torch import Tensor, nn

from ganad.batch.augment_fit import passes
from ganad.batch.fixed import fixed
from ganad.detectors.base import BatchScores, StatisticsDetector, StatisticsT
from ganad.detectors.statistics.attribution import heat_maps
from ganad.detectors.statistics.config import PooledConfig
from ganad.errors import TrainingError
from ganad.features.backbone import FeatureExtractor

CONSTANT = 1e-6
"""Features whose spread is less than this share of their size do not vary: it is rounding."""

PooledConfigT = TypeVar("PooledConfigT", bound=PooledConfig)
LevelT = TypeVar("LevelT", bound=nn.Module)


class PooledDetector(
    StatisticsDetector[PooledConfigT, StatisticsT], Generic[PooledConfigT, StatisticsT, LevelT]
):
    """A frozen network, and one module per level that is fitted to its pooled features.

    The heat map of an image has its score as the mean over all pixels, see heat_maps.
    """

    def __init__(self, config: PooledConfigT, load_weights: bool = True) -> None:
        super().__init__(config)
        backbone = config.backbone
        self.extractor = FeatureExtractor(
            backbone.name,
            config.input_size,
            backbone.levels,
            backbone.weights,
            config.seed,
            load_weights,
            size_key=config.input_key,
        )
        dimensions = self.extractor.dimensions.items()
        # A module's name has no dots.
        self.fits = nn.ModuleDict({k.replace(".", "_"): self.make_level(d) for k, d in dimensions})

    @classmethod
    def from_saved(cls, config: PooledConfigT) -> Self:
        """Without the file or hub that the weights came from: they are part of the state."""
        return cls(config, load_weights=False)

    @abstractmethod
    def make_level(self, dimension: int) -> LevelT:
        """The unfitted module of a level whose vectors have that width."""

    @property
    def levels(self) -> dict[str, LevelT]:
        """The fitted modules by level, in the order of the network."""
        return dict(zip(self.extractor.dimensions, self.fits.values(), strict=True))  # type: ignore[arg-type]

    def facts(self) -> dict[str, Any]:
        return {"weights": self.extractor.source, "weights_digest": self.extractor.digest}

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """uint8 (n, c, h, w) -> pooled features, float32 (n, d) by level."""
        prepared = self.prepare(images)
        with torch.no_grad(), self.autocast():
            return self.extractor(prepared)

    @abstractmethod
    def level_terms(self, vectors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Pooled features (n, d) by level -> terms of the score, float64 (n,) by level,
        differentiable."""

    def score_features(self, features: dict[str, Tensor]) -> BatchScores:
        """Pooled features of a batch of images, by level -> their scores without maps."""
        return self._combine(self.level_terms(features))

    def score_batch(self, images: Tensor, ids: Sequence[str], maps: bool) -> BatchScores:
        if not maps:
            return self.score_features(self.features(images))
        prepared = self.prepare(images)
        with self.autocast():
            found = self.extractor.maps(prepared)
        terms, heat = heat_maps(found, self.level_terms, self.config.input_size)
        scores = self._combine(terms)
        scores.maps = heat
        return scores

    def _combine(self, terms: dict[str, Tensor]) -> BatchScores:
        return BatchScores(torch.stack(list(terms.values())).sum(0), terms)

    def passes(self, images: Tensor) -> Iterator[Tensor]:
        """uint8 training images (n, c, h, w) -> what each pass over them sees, windows if any."""
        for varied in passes(images, self.config.augment, self.config.seed):
            yield self.patches(varied)

    def training_features(self, images: Tensor) -> Iterator[dict[str, Tensor]]:
        """Features of consecutive batches; raises TrainingError if one is not finite.

        Batches are filled up as for scoring (see scoring_batch): a fit then does not depend, in
        the last bits, on how the training images were cut into pieces.
        """
        for some in images.split(self.scoring_batch):
            batch, num = fixed(some, self.scoring_batch)
            found = self.features(batch)
            for level, vectors in found.items():
                if not vectors.isfinite().all():
                    raise TrainingError(
                        f"{self.name}: the network gives training images features at {level} that "
                        f"are not finite: set precision to float32 or use other weights"
                    )
            yield {level: vectors[:num] for level, vectors in found.items()}

    def refuse_few(self, num: int, what: str) -> None:
        """Raise TrainingError if num images cannot make what."""
        if num < 2:
            raise TrainingError(
                f"{self.name}: {num} training images are too few for {what}: "
                f"give at least 2, better some hundred"
            )

    def refuse_constant(self, level: str, num: int, spread: float, size: float) -> None:
        """Raise TrainingError if num vectors of that mean size have no spread about their mean."""
        if not spread > CONSTANT * size:
            raise TrainingError(
                f"{self.name}: the features at {level} are the same for all {num} training "
                f"images: give images that differ, or choose backbone.levels without it"
            )

    def singular(self, level: str, num: int) -> TrainingError:
        """What to raise if the covariance of num vectors has no inverse."""
        return TrainingError(
            f"{self.name}: the covariance at {level} of {num} training images cannot be "
            f"inverted, because they are too few or too alike: give more"
        )
