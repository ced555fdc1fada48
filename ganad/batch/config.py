"""The config keys of what happens to batches: windows cut from images, and augmentation."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class PatchConfig(BaseModel):
    """The windows."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    size: int = Field(ge=8, le=2048)
    """Side in pixels of the windows that the networks see."""
    stride: int | None = Field(default=None, ge=1)
    """Pixels from a window to the next when scoring; left out = size, without overlap."""
    pool: Literal["max", "top_k", "mean"] = "max"
    """The image's score: that of its worst window, or the mean of the top_k worst, or of all."""
    top_k: int = Field(default=3, ge=1)
    """Windows that count with pool = "top_k"."""

    def num_counted(self, num: int) -> int:
        """How many of the num windows of an image, the worst ones, make its score."""
        return {"max": 1, "top_k": self.top_k, "mean": num}[self.pool]

    per_image: int = Field(default=1, ge=1)
    """Windows drawn from each image in an epoch, at random and anew each time. (A method that is
    fitted in one pass takes the windows that scoring takes.)"""


def corners(image_size: int, patch: PatchConfig) -> list[tuple[int, int]]:
    """(top, left) of the windows that cover an image, row by row; the last ones end at its edge."""
    starts = list(range(0, image_size - patch.size, patch.stride or patch.size))
    starts.append(image_size - patch.size)
    return [(top, left) for top in starts for left in starts]


class Augment(BaseModel):
    """All off by default: a variation that makes of a normal image one that would be a defect
    teaches the wrong thing, so each is to be chosen for the images at hand."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    flip_horizontal: bool = False
    """Mirror half of the images left to right."""
    flip_vertical: bool = False
    """Mirror half of the images top to bottom."""
    rotate: float = Field(default=0.0, ge=0, le=180)
    """Turn by up to so many degrees either way; corners are filled by reflection."""
    shift: float = Field(default=0.0, ge=0, le=0.5)
    """Move by up to this share of the side in both directions; edges are filled by reflection."""
    brightness: float = Field(default=0.0, ge=0, le=1)
    """Make lighter or darker by up to this share of the range from black to white."""

    @property
    def any(self) -> bool:
        """Whether there is anything to do."""
        return self != Augment()


class AugmentedFit(BaseModel):
    """Off unless repeats is set. The others ban what would make a defect of a normal image."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    repeats: int = Field(default=0, ge=0)
    """Passes over the training images, each of which varies them anew (paper: 100); 0 = one pass
    over the images as they are."""
    flip: bool = True
    """Mirror left to right. The paper's ban: metal_nut, pill, capsule, screw."""
    quarter_turns: bool = True
    """Turn by 90, 180 or 270 degrees. The paper's ban: transistor."""
    rotate: float = Field(default=45.0, ge=0, le=180)
    """Turn by up to so many degrees. The paper has 15 where things lie in one way: bottle, cable,
    capsule, metal_nut, pill, screw, toothbrush, transistor, wood, zipper."""
    move_edges: bool = True
    """Shift, scale or turn at all, which fills edges by reflection. The paper's ban: grid."""
