"""The config keys of the detectors that are fitted to a network's features in one pass."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ganad.batch.config import AugmentedFit
from ganad.detectors.config import DetectorConfig, Precision
from ganad.errors import ConfigError
from ganad.features.settings import Backbone, with_native_size


class PooledConfig(DetectorConfig):
    """Defaults: EfficientNet-Lite0, all nine levels."""

    image_size: int = Field(default=224, ge=8, le=8192)
    """Side in pixels of the square that images are resized to; left out = the network's own."""
    precision: Precision = "float32"
    """bfloat16 is about twice as fast. It ranks images almost, not quite, as float32 does."""
    backbone: Backbone = Backbone()
    augment: AugmentedFit = AugmentedFit()
    """How training images are varied and repeated."""

    @model_validator(mode="before")
    @classmethod
    def _native_size(cls, values: Any) -> Any:
        return with_native_size(values)


class GaussianConfig(PooledConfig):
    """Defaults: the paper's EfficientNet-B4, all nine levels, no reduction."""

    reduction: Literal["none", "pca", "npca"] = "none"
    """pca keeps the principal components with most variance, npca those with least."""
    explained_variance: float = Field(default=0.99, gt=0, lt=1)
    """Where pca ends and npca begins. 0.99 is the paper's "NPCA 1 %"."""


class SampleConfig(PooledConfig):
    """Keys of detectors that keep features."""

    max_images: int = Field(default=10_000, ge=2)
    """Training images kept at most; of more, a random sample drawn from seed. One takes four
    bytes per feature (12 kB with all levels of EfficientNet-B4), in memory and in the model."""


Metric = Literal["euclidean", "cosine"]


Aggregation = Literal["mean", "max"]


class KnnConfig(SampleConfig):
    """Defaults: two neighbours, as in the code of Reiss et al. (PANDA, CVPR 2021)."""

    k: int = Field(default=2, ge=1)
    """Neighbours."""
    aggregation: Aggregation = "mean"
    """Of the distances to the k neighbours; max is the distance to the k-th."""
    metric: Metric = "euclidean"
    """cosine compares directions alone: images that differ by the strength of their features, as
    by exposure, are then alike."""

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.k > self.max_images:
            raise ConfigError(
                f"k={self.k} is more than max_images={self.max_images}: "
                f"set k to {self.max_images} or less"
            )
        return self


class GmmConfig(SampleConfig):
    """Defaults: as many components as held-out normal images ask for, five at most."""

    max_components: int = Field(default=5, ge=1)
    """Upper bound on K, the Gaussians of a level. 1 = one Gaussian, the detector `gaussian`."""


class OcsvmConfig(SampleConfig):
    """Defaults: ν of scikit-learn, as in the code of Rippel et al."""

    max_images: int = Field(default=5_000, ge=2)
    """Training images used at most; of more, a random sample drawn from seed. The fit takes
    time with their square, and a share nu of them or more stays in the model."""
    nu: float = Field(default=0.5, gt=0, le=1)
    """ν: at most this share of the training images lies outside, at least this share supports."""
