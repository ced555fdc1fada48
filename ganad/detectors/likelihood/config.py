"""The config keys of the likelihood models."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from ganad.detectors.config import GradientConfig
from ganad.errors import ConfigError


class AutoregressiveConfig(GradientConfig):
    """Keys of both methods."""

    largest_input: ClassVar[int] = 128

    image_size: int = Field(default=32, ge=8, le=8192)
    """Side in pixels; time grows with its square."""
    batch_size: int = Field(default=16, ge=1)
    """Images per step over all workers together."""
    levels: int = Field(default=256, ge=2, le=256)
    """Values that a pixel can have; fewer than 256 round the image and train faster."""
    score: Literal["likelihood", "complexity"] = "likelihood"
    """Bits per dimension, or those minus the bits of a PNG file (Serrà et al., ICLR 2020), which
    corrects for the high likelihood of plain images."""

    def check_width(self, key: str, features: int) -> None:
        """Raise ConfigError unless the features of a layer divide evenly among the colours."""
        if features % self.channels:
            raise ConfigError(
                f"{key}={features} does not divide among {self.channels} channels: "
                f"use a multiple of {self.channels}"
            )


class PixelCnnConfig(AutoregressiveConfig):
    """Defaults: a network that a processor can train. The preset `paper` has the paper's."""

    learning_rate: float = Field(default=1e-3, gt=0)
    """Adam's learning rate. The paper does not give one."""
    layers: int = Field(default=7, ge=1, le=1000)
    """Gated layers, including the first one with mask A."""
    width: int = Field(default=48, ge=1)
    """Features of each stack; a multiple of channels, because the colours share them."""
    kernel: int = Field(default=3, ge=3)
    """Side of the kernels after the first layer; odd."""
    first_kernel: int = Field(default=7, ge=3)
    """Side of the first layer's kernel; odd."""

    @model_validator(mode="after")
    def _check(self) -> PixelCnnConfig:
        self.check_width("width", self.width)
        for key in ("kernel", "first_kernel"):
            if getattr(self, key) % 2 == 0:
                raise ConfigError(f"{key}={getattr(self, key)} is even: use an odd number")
        return self


class PixelRnnConfig(AutoregressiveConfig):
    """Defaults: a network that a processor can train. The preset `paper` has the paper's."""

    largest_input: ClassVar[int] = 64

    image_size: int = Field(default=32, ge=8, le=8192)
    """Side in pixels; rows are computed one after another: time grows faster than its square."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """RMSProp's learning rate. The paper set it by hand for each data set."""
    layers: int = Field(default=7, ge=1, le=1000)
    """Row LSTM layers."""
    hidden: int = Field(default=18, ge=1)
    """h, features of a state; a multiple of channels, because the colours share them."""
    kernel: int = Field(default=3, ge=3)
    """k of the 1×k kernels; odd, at least 3 (paper)."""
    head_width: int = Field(default=36, ge=1)
    """Features of the 1×1 layers before the softmax; a multiple of channels."""

    @model_validator(mode="after")
    def _check(self) -> PixelRnnConfig:
        self.check_width("hidden", self.hidden)
        self.check_width("head_width", self.head_width)
        if self.kernel % 2 == 0:
            raise ConfigError(f"kernel={self.kernel} is even: use an odd number")
        return self
