"""The config keys of the detectors over maps of a frozen network."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ganad.batch.config import AugmentedFit
from ganad.detectors.config import DetectorConfig, Precision
from ganad.errors import ConfigError
from ganad.features.settings import MapBackbone, with_native_size


class MapConfig(DetectorConfig):
    """Defaults: EfficientNet-Lite0, the last stages with 4, 8 and 16 pixels per place."""

    image_size: int = Field(default=224, ge=8, le=8192)
    """Side in pixels of the square that images are resized to; left out = the network's own."""
    precision: Precision = "float32"
    """bfloat16 is about twice as fast. It ranks images almost, not quite, as float32 does."""
    backbone: MapBackbone = MapBackbone()
    blur: float = Field(default=4.0, ge=0)
    """σ in pixels of the Gaussian that smooths heat maps (4 in the code of PaDiM and PatchCore)."""
    image_score: Literal["worst", "mean"] = "worst"
    """worst: as in the method's paper, from the worst place, for defects of any size. mean: over
    all places, for anomalies that change much of an image."""
    augment: AugmentedFit = AugmentedFit()
    """How training images are varied and repeated."""

    @model_validator(mode="before")
    @classmethod
    def _native_size(cls, values: Any) -> Any:
        return with_native_size(values)


class PadimConfig(MapConfig):
    """Defaults: the paper's 100 random channels and ε."""

    num_channels: int = Field(default=100, ge=1)
    """d: channels drawn from the seed (all, if the maps have fewer). Memory goes with its square:
    784 places take 31 MB to score, and as much again to add images later."""
    epsilon: float = Field(default=0.01, gt=0)
    """ε, in units of the channels' variance over all places."""


class DeepAnomalyBackbone(MapBackbone):
    """The frozen network of Deep-Anomaly."""

    finest: ClassVar[int] = 8
    coarsest: ClassVar[int] = 8

    levels: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Stages to use; left out = the last one with a place for every 8×8 pixels (as has the second
    convolution of AlexNet, which the paper takes)."""


class DeepAnomalyConfig(MapConfig):
    """Defaults: quantiles and a sparse autoencoder that need no labels."""

    backbone: DeepAnomalyBackbone = DeepAnomalyBackbone()
    alpha: float = Field(default=0.95, gt=0, lt=1)
    """Share of held-out normal places that the first Gaussian calls normal; also the share of its
    doubtful ones that the second does."""
    beta: float = Field(default=0.999, gt=0, lt=1)
    """Share of held-out normal places that the first Gaussian does not call abnormal."""
    hidden: int = Field(default=100, ge=1)
    """Units of the sparse autoencoder."""
    sparsity: float = Field(default=0.05, gt=0, lt=1)
    """ρ: mean activation of a hidden unit (Ng, "Sparse autoencoder", 2011)."""
    sparsity_weight: float = Field(default=3.0, ge=0)
    """Weight of the sparsity penalty in the loss (Ng's exercise)."""
    steps: int = Field(default=1_000, ge=1)
    """Steps of the autoencoder's training, each on 1,024 places."""
    max_places: int = Field(default=100_000, ge=2)
    """Places kept to train the autoencoder, and as many for the thresholds; of more, a random
    sample drawn from seed."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.alpha >= self.beta:
            raise ConfigError(
                f"alpha={self.alpha} is not less than beta={self.beta}: lower alpha or raise beta"
            )
        return self


class PatchcoreBackbone(MapBackbone):
    """The frozen network of PatchCore."""

    finest: ClassVar[int] = 8
    pixels_per_place: ClassVar[int] = 16

    levels: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Stages to use, such as blocks.2; left out = of the stages with a place for every 8×8 and
    16×16 pixels the last (stages 2 and 3 of a ResNet, as in the paper)."""
    grid: int | None = Field(default=None, ge=1)
    """Places per side that all stages are resized to; left out = one for every 16×16 pixels: with
    10,000 entries the search then takes less time than the network. The paper has 8×8, for which
    four times the entries cover normal images as densely."""


class DictionaryBackbone(MapBackbone):
    """The frozen network of a dictionary of patches."""

    finest: ClassVar[int] = 16
    pixels_per_place: ClassVar[int] = 16

    levels: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Stages to use; left out = the last one with a place for every 16×16 pixels."""
    grid: int | None = Field(default=None, ge=1)
    """Places per side; left out = those of that stage."""


class DictionaryConfig(MapConfig):
    """Defaults: the paper's share of variance, and sizes from the middle of those it tries."""

    backbone: DictionaryBackbone = DictionaryBackbone()
    explained_variance: float = Field(default=0.95, gt=0, le=1)
    """Share of the variance that the principal components kept hold (the paper's)."""
    entries: int = Field(default=500, ge=1)
    """K: centres of k-means. The paper tries 10 to 1,000; Bergmann et al. (MVTec AD, 2019) use
    10."""
    neighbours: int = Field(default=5, ge=1)
    """m: nearest entries whose distances are averaged."""
    max_places: int = Field(default=100_000, ge=2)
    """Vectors that k-means passes over; of more, a random sample drawn from seed. With
    EfficientNet-Lite0 they take 45 MB."""


class PatchcoreConfig(MapConfig):
    """Defaults: 10,000 entries, and the b of the authors' code."""

    backbone: PatchcoreBackbone = PatchcoreBackbone()
    entries: int = Field(default=10_000, ge=2)
    """Vectors kept: 7 MB with EfficientNet-Lite0. The fit takes five times this memory, whatever
    the number of images."""
    neighbours: int = Field(default=9, ge=1)
    """b: entries around the nearest one that weigh the image's score."""
