"""Gaussian AD (Rippel, Mertens, Merhof: "Modeling the Distribution of Normal Data in Pre-Trained
Deep Features for Anomaly Detection", ICPR 2020).

Per level ℓ of a frozen ImageNet classifier: f_ℓ(x) = the mean over all places of its map, a
Gaussian N(μ_ℓ, Σ_ℓ) of the normal images' f_ℓ with Σ_ℓ by Ledoit and Wolf, and

    M_ℓ(x) = √((f_ℓ − μ_ℓ)ᵀ Σ_ℓ⁻¹ (f_ℓ − μ_ℓ)),   A(x) = Σ_ℓ M_ℓ(x)

Nothing is trained: fitting is one pass that sums moments.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from torch import Tensor, nn

from ganad.covariance import (
    Moments,
    cholesky_whitening,
    ledoit_wolf,
    merge,
    principal_whitening,
)
from ganad.detectors.base import DetectorConfig, Scores, StatisticsDetector
from ganad.errors import TrainingError
from ganad.features import RANDOM, FeatureExtractor, full_name, native_size

CONSTANT = 1e-6
"""Features whose spread is less than this share of their size do not vary: it is rounding."""


class Backbone(BaseModel):
    """The frozen network."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = "tf_efficientnet_b4.aa_in1k"
    """As timm has it, with a tag or timm's default one."""
    weights: str | None = None
    """Path of a state dict (.pth, .safetensors); random = drawn from seed; left out = those of
    the tag, from the Hugging Face hub."""
    levels: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Stages to use, such as blocks.5; left out = all."""

    @field_validator("name")
    @classmethod
    def _with_tag(cls, name: str) -> str:
        return full_name(name)

    @field_validator("levels", mode="before")
    @classmethod
    def _split(cls, levels: Any) -> Any:
        """On a command line, a word or several with commas between them."""
        return tuple(levels.split(",")) if isinstance(levels, str) else levels

    @field_validator("weights")
    @classmethod
    def _absolute(cls, weights: str | None) -> str | None:
        """Workers run in other folders than the one that the path was typed in."""
        if weights is None or weights == RANDOM:
            return weights
        return os.path.abspath(os.path.expanduser(weights))


class GaussianConfig(DetectorConfig):
    """Defaults: the paper's EfficientNet-B4, all nine levels, no reduction."""

    image_size: int = Field(default=380, ge=8, le=2048)
    """Side in pixels of the square that images are resized to; left out = the network's own."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 is about twice as fast. It ranks images almost, not quite, as float32 does."""
    backbone: Backbone = Backbone()
    reduction: Literal["none", "pca", "npca"] = "none"
    """pca keeps the principal components with most variance, npca those with least."""
    explained_variance: float = Field(default=0.99, gt=0, lt=1)
    """Where pca ends and npca begins. 0.99 is the paper's "NPCA 1 %"."""

    @model_validator(mode="before")
    @classmethod
    def _native_size(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or "image_size" in values:
            return values
        backbone = values.get("backbone", {})
        given = backbone.model_dump() if isinstance(backbone, Backbone) else backbone
        name = given.get("name") if isinstance(given, Mapping) else None
        if not isinstance(name, str):  # the default network, or an error that pydantic tells
            return values
        return {**values, "image_size": native_size(name)}


class Level(nn.Module):
    """The Gaussian of one level, and the sums it was made from, so that more can be added."""

    mean: Tensor
    whitening: Tensor
    shrinkage: Tensor
    num_kept: Tensor
    n: Tensor

    def __init__(self, dimension: int) -> None:
        super().__init__()
        # Before the fit all is nan, and so are the scores.
        self.register_buffer("mean", torch.full((dimension,), torch.nan, dtype=torch.float64))
        self.register_buffer(
            "whitening", torch.full_like(torch.outer(self.mean, self.mean), torch.nan)
        )
        self.register_buffer("shrinkage", torch.tensor(torch.nan, dtype=torch.float64))
        self.register_buffer("num_kept", torch.tensor(0))
        for name, array in Moments.empty(torch.zeros(dimension)).to_arrays().items():
            self.register_buffer(name, torch.from_numpy(array.copy()))

    @property
    def moments(self) -> Moments:
        """A copy of the sums."""
        parts = (self.get_buffer(name).clone() for name in ("x0", "s", "s2", "a", "u", "q"))
        return Moments(int(self.n), *parts)

    def fit(self, moments: Moments, reduction: str, explained_variance: float) -> None:
        """Raises numpy's LinAlgError if the covariance is singular."""
        shrunk = ledoit_wolf(moments)
        if reduction == "none":
            whitening = cholesky_whitening(shrunk.matrix)
        elif reduction == "pca":
            whitening = principal_whitening(shrunk, "pca", explained_variance)
        else:
            whitening = principal_whitening(shrunk, "npca", explained_variance)
        self.mean.copy_(shrunk.mean)
        # Rows of zeros for the components dropped: shapes then do not depend on the data.
        self.whitening.zero_()[: len(whitening)] = whitening
        self.shrinkage.fill_(shrunk.shrinkage)
        self.num_kept.fill_(len(whitening))
        for name, array in moments.to_arrays().items():
            self.get_buffer(name).copy_(torch.from_numpy(array))

    def forward(self, vectors: Tensor) -> Tensor:
        """(n, d) -> Mahalanobis distances, float64 (n,), nan for vectors that are not finite."""
        # float64 costs little here and the whitening of a wide level spans many digits.
        distances = ((vectors.double() - self.mean) @ self.whitening.T).norm(dim=1)
        return distances.where(distances.isfinite(), torch.nan)


class Gaussian(StatisticsDetector[GaussianConfig, dict[str, Moments]]):
    """Statistics are Moments by level. Those of the training stay in the model:

    more = detector.observe(detector.begin(images), images)
    detector.finish(detector.merge([detector.statistics, more]))
    """

    name = "gaussian"
    summary = (
        "Gaussians over pooled features of a frozen ImageNet network; score = sum of distances"
    )
    paper = "Rippel et al., Modeling the Distribution of Normal Data, ICPR 2020"
    good_at = "photographs of objects and surfaces; few normal images; no training"
    bad_at = "defects that are small beside the image; images unlike photographs"
    Config = GaussianConfig

    def __init__(self, config: GaussianConfig, load_weights: bool = True) -> None:
        super().__init__(config)
        backbone = config.backbone
        self.extractor = FeatureExtractor(
            backbone.name,
            config.image_size,
            backbone.levels,
            backbone.weights,
            config.seed,
            load_weights,
        )
        # A module's name has no dots.
        self.gaussians = nn.ModuleDict(
            {level.replace(".", "_"): Level(d) for level, d in self.extractor.dimensions.items()}
        )

    @classmethod
    def from_saved(cls, config: GaussianConfig) -> Self:
        """Without the file or hub that the weights came from: they are part of the state."""
        return cls(config, load_weights=False)

    @property
    def levels(self) -> dict[str, Level]:
        """The fitted Gaussians by level, in the order of the network."""
        modules = self.gaussians.values()
        return dict(zip(self.extractor.dimensions, modules, strict=True))  # type: ignore[arg-type]

    @property
    def statistics(self) -> dict[str, Moments]:
        """The sums that the model was fitted to; empty ones before."""
        return {name: level.moments for name, level in self.levels.items()}

    def facts(self) -> dict[str, Any]:
        digest = {"weights_digest": self.extractor.digest}
        num_images = max(int(level.n) for level in self.levels.values())
        if num_images == 0:
            return digest
        return {
            **digest,
            "num_images": num_images,
            "levels": {
                name: {
                    "dimension": len(level.mean),
                    "num_kept": int(level.num_kept),
                    "shrinkage": float(level.shrinkage),
                }
                for name, level in self.levels.items()
            },
        }

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """uint8 (n, c, h, w) -> pooled features, float32 (n, d) by level."""
        prepared = self.prepare(images)
        with torch.no_grad(), self.autocast():
            return self.extractor(prepared)

    def begin(self, images: Tensor) -> dict[str, Moments]:
        first = self.features(images[: self.scoring_batch])
        return {level: Moments.empty(vectors.mean(0)) for level, vectors in first.items()}

    def observe(self, statistics: dict[str, Moments], images: Tensor) -> dict[str, Moments]:
        # Statistics begun in another process lie in its memory; the sums belong on this device.
        statistics = {level: moments.to(self.device) for level, moments in statistics.items()}
        for batch in images.split(self.scoring_batch):
            found = self.features(batch)
            for level, vectors in found.items():
                if not vectors.isfinite().all():
                    raise TrainingError(
                        f"gaussian: the network gives training images features at {level} that "
                        f"are not finite: set precision to float32 or use other weights"
                    )
            statistics = {level: moments.add(found[level]) for level, moments in statistics.items()}
        return statistics

    def merge(self, parts: Iterable[dict[str, Moments]]) -> dict[str, Moments]:
        every = list(parts)
        return {level: merge(part[level] for part in every) for level in every[0]}

    def finish(self, statistics: dict[str, Moments]) -> dict[str, Any]:
        for name, level in self.levels.items():
            moments = statistics[name].to(level.mean.device)
            if moments.n < 2:
                raise TrainingError(
                    f"gaussian: {moments.n} training images are too few for a covariance: "
                    f"give at least 2, better some hundred"
                )
            centred = moments.about(moments.mean)
            spread = (centred.a / centred.n).clamp(min=0).sqrt()
            if not spread > CONSTANT * moments.mean.norm():
                raise TrainingError(
                    f"gaussian: the features at {name} are the same for all {moments.n} training "
                    f"images: give images that differ, or choose backbone.levels without it"
                )
            try:
                level.fit(moments, self.config.reduction, self.config.explained_variance)
            except np.linalg.LinAlgError:
                raise TrainingError(
                    f"gaussian: the covariance at {name} of {moments.n} training images cannot be "
                    f"inverted, for they are too few or too alike: give more"
                ) from None
        return self.facts()

    def score_batch(self, images: Tensor, ids: Sequence[str], maps: bool) -> Scores:
        found = self.features(images)
        terms = {name: level(found[name]).cpu().numpy() for name, level in self.levels.items()}
        return Scores(np.sum(list(terms.values()), axis=0), terms)
