"""Config keys of a frozen network: which one, its weights, its levels, and the grid of its maps."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ganad.features.records import RANDOM, full_name, native_size

DEFAULT = "tf_efficientnet_lite0.in1k"
"""Its weights are installed with ganad."""


class Backbone(BaseModel):
    """The frozen network."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    name: str = DEFAULT
    """As timm has it, with a tag or timm's default one."""
    weights: str | None = None
    """Path of a state dict (.pth, .safetensors); random = drawn from seed; left out = those of
    the tag, from an installed package (tf_efficientnet_lite0) or the Hugging Face hub."""
    levels: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Stages to use, such as blocks.5; left out = all."""

    @field_validator("name")
    @classmethod
    def _with_tag(cls, name: str) -> str:
        return full_name(name)

    @field_validator("levels", mode="before")
    @classmethod
    def _split(cls, levels: Any) -> Any:
        """On a command line, one word or several with commas between them."""
        return tuple(levels.split(",")) if isinstance(levels, str) else levels

    @field_validator("weights")
    @classmethod
    def _absolute(cls, weights: str | None) -> str | None:
        """Workers run in other folders than the one that the path was typed in."""
        if weights is None or weights == RANDOM:
            return weights
        return os.path.abspath(os.path.expanduser(weights))


class MapBackbone(Backbone):
    """The frozen network, for a detector that uses its maps."""

    finest: ClassVar[int] = 4
    coarsest: ClassVar[int] = 16
    """Pixels per place of the stages taken when none are named."""
    pixels_per_place: ClassVar[int] = 8
    """Of the grid, when its size is not named."""

    levels: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Stages to use, such as blocks.2; left out = of the stages with a place for every 4×4 to
    16×16 pixels the last of each size (stages 1 to 3 of a ResNet, as in PaDiM)."""
    grid: int | None = Field(default=None, ge=1)
    """Places per side that all stages are resized to; left out = one for every 8×8 pixels, or
    those of the finest stage used if it has fewer."""


def with_native_size(values: Any) -> Any:
    """Config values, with the image_size of the network named in them if they do not say it.

    For a pydantic "before" validator of a config with the keys backbone and image_size; the
    default network's size is the config's own default.
    """
    if not isinstance(values, Mapping) or "image_size" in values:
        return values
    backbone = values.get("backbone", {})
    given = backbone.model_dump() if isinstance(backbone, Backbone) else backbone
    name = given.get("name") if isinstance(given, Mapping) else None
    if not isinstance(name, str):  # the default network, or an error that pydantic reports
        return values
    return {**values, "image_size": native_size(name)}
