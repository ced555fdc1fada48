"""The config keys of the detectors that learn from a frozen network."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from ganad.detectors.config import GradientConfig
from ganad.features.settings import MapBackbone, with_native_size


class StudentConfig(GradientConfig):
    """Defaults: three students, as in the paper, of a size that a processor can train."""

    image_size: int = Field(default=224, ge=8, le=8192)
    """Side in pixels of the square that images are resized to; left out = the teacher's own."""
    batch_size: int = Field(default=16, ge=1)
    """Images per step over all workers together."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Adam's learning rate. The paper's 1e-4 goes with one image a step and 100 epochs."""
    weight_decay: float = Field(default=1e-5, ge=0)
    """Adam's weight decay (the paper's)."""
    backbone: MapBackbone = MapBackbone()
    """The teacher: a frozen network, and what of its maps the students learn."""
    students: int = Field(default=3, ge=2)
    """M: networks that differ in their first weights alone (the paper's 3)."""
    width: int = Field(default=64, ge=4)
    """Channels of a student's convolutions at the teacher's grid; the first ones have a quarter and
    a half of them."""
    worst: float = Field(default=0.01, gt=0, le=1)
    """Fraction of an image's places, the worst ones, whose mean is the image's score."""

    @model_validator(mode="before")
    @classmethod
    def _native_size(cls, values: Any) -> Any:
        return with_native_size(values)
