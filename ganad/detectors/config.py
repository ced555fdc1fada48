"""The config keys that all detectors share. Like every config module it imports no torch, so a
command that only checks or prints keys starts at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ganad.batch.config import Augment, PatchConfig, corners
from ganad.errors import ConfigError
from ganad.features.settings import DEFAULT, MapBackbone, with_native_size

Precision = Literal["auto", "float32", "bfloat16"]


class DetectorConfig(BaseModel):
    """Keys that every detector has. Unknown keys are errors (see ganad.detectors.configure)."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    smallest_input: ClassVar[int] = 8
    largest_input: ClassVar[int] = 2048

    image_size: int = Field(default=64, ge=8, le=8192)
    """Side in pixels of the square that images are resized to; the aspect ratio is not kept."""
    patch: PatchConfig | None = None
    """patch.size and so on: the networks see windows of the image, where a small defect is large.
    Left out = they see the whole image."""
    channels: Literal[1, 3] = 3
    """1 = grey, 3 = RGB."""
    batch_size: int = Field(default=64, ge=1)
    """Images per step over all workers together."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Fixes first weights, data order, noise and the split. 0 is a seed like any other."""
    precision: Precision = "auto"
    """Precision of the forward pass (autocast); weights, losses and scores stay float32 or better.
    auto: bfloat16 where the processor or GPU has instructions for it, else float32. Name one if
    the machines of a cluster differ: scores would differ in the fourth digit."""

    calibration_folds: int = Field(default=0, ge=0, le=50)
    """0: p-values come from 15 % of the normal images, which are held out; they are exact. k (5 is
    usual): all normal images are fitted to, and p-values come from all of them, each scored by a
    model that was fitted without its fold. p-values are several times as fine, and approximate. A
    method trained by gradient is trained k + 1 times."""

    @field_validator("calibration_folds")
    @classmethod
    def _check_folds(cls, folds: int) -> int:
        if folds == 1:
            raise ConfigError("calibration_folds=1 leaves nothing to fit to: use 0, or 2 or more")
        return folds

    @property
    def input_size(self) -> int:
        """Side in pixels of what the networks see."""
        return self.image_size if self.patch is None else self.patch.size

    @property
    def input_key(self) -> str:
        """The key that input_size comes from."""
        return "image_size" if self.patch is None else "patch.size"

    @model_validator(mode="after")
    def _check_input(self) -> Self:
        size, patch = self.input_size, self.patch
        if not self.smallest_input <= size <= self.largest_input:
            raise ConfigError(
                f"{self.input_key}={size} is not a size that this method takes: "
                f"use {self.smallest_input} to {self.largest_input}"
            )
        if patch is None:
            return self
        if size > self.image_size:
            raise ConfigError(
                f"patch.size={size} is larger than image_size={self.image_size}: "
                f"raise image_size, which is the side of the whole image"
            )
        if patch.stride is not None and patch.stride > size:
            raise ConfigError(
                f"patch.stride={patch.stride} would leave pixels unseen: use at most {size}"
            )
        num = len(corners(self.image_size, patch))
        if patch.pool == "top_k" and patch.top_k > num:
            raise ConfigError(
                f"patch.top_k={patch.top_k} is more than the {num} patches of an image: use fewer"
            )
        return self


class GradientConfig(DetectorConfig):
    """Keys of every method trained by gradient."""

    epochs: int = Field(default=15, ge=1)
    """Passes over the training images; fixed in advance: the last weights are the result."""
    learning_rate: float = Field(default=2e-4, gt=0)
    """Learning rate of every optimiser."""
    augment: Augment = Augment()
    """How training images are varied."""


GRID = 16
"""Places per side of the maps that networks are trained on, unless backbone.grid is set."""


class RepresentationConfig(GradientConfig):
    """Keys of the methods that are trained on pixels, or on dense maps of a frozen network.

    On maps the networks see standardised features, one vector for each place of a grid, in place of
    colours; their last layer is linear, and losses are those of the paper. A score is made of terms
    by place: the mean of the worst places, standardised by its mean and spread over normal images
    that neither trained the networks nor calibrate them, and summed.
    """

    known_terms: ClassVar[tuple[str, ...]]
    """Terms that this method has on maps."""

    representation: Literal["pixels", "maps"] = "pixels"
    """What the networks see: the image, or maps of the backbone, which find defects on photographs.
    With maps, image_size is by default the backbone's own."""
    backbone: MapBackbone = MapBackbone(grid=GRID)
    """The frozen network of the maps."""
    terms: tuple[str, ...]
    """Terms that make the score on maps; every term is reported."""
    map_terms: tuple[str, ...] = ("residual",)
    """Terms that make the heat map on maps: by default where x and its reconstruction differ, on
    the grid of the maps. A code has a few places or none, and cannot show a small defect's."""
    worst: float = Field(default=0.01, gt=0, le=1)
    """Fraction of an image's places, the worst ones, whose mean is a term on maps."""

    @model_validator(mode="before")
    @classmethod
    def _native_size(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or values.get("representation") != "maps":
            return values
        given = values.get("backbone", {})
        backbone = {"name": DEFAULT, **given} if isinstance(given, Mapping) else given
        return with_native_size({**values, "backbone": backbone})

    @field_validator("terms", "map_terms", mode="before")
    @classmethod
    def _split(cls, terms: Any) -> Any:
        """On a command line, one word or several with commas between them."""
        return tuple(terms.split(",")) if isinstance(terms, str) else terms

    @model_validator(mode="after")
    def _check_terms(self) -> Self:
        for key, terms in (("terms", self.terms), ("map_terms", self.map_terms)):
            if not terms or not {*terms} <= {*self.known_terms} or len({*terms}) < len(terms):
                raise ConfigError(
                    f"{key}={','.join(terms)} must be different terms of this method: "
                    f"use some of {', '.join(self.known_terms)}"
                )
        return self

    @property
    def network_size(self) -> int:
        """Values, pixels or places, per side of what the networks see."""
        return self.input_size if self.representation == "pixels" else self.backbone.grid or GRID

    @property
    def network_key(self) -> str:
        """The key that network_size comes from."""
        return self.input_key if self.representation == "pixels" else "backbone.grid"
