"""Dense maps of a frozen network: one vector for each place of an image.

The chosen stages are smoothed by 3×3 average pooling (the neighbourhood of Roth et al., "Towards
Total Recall in Industrial Anomaly Detection", CVPR 2022; places beyond the edge do not count),
resized to one grid (area means down, bilinear up) and concatenated. Standardisation, where a
detector asks for it, is by channel, with mean and spread over all places of normal images:

    maps = FeatureMaps(MapBackbone(grid=16), image_size=256)
    raw = maps(images)                             # (n, C, 16, 16), C = maps.channels
    moments = ChannelMoments.merge([ChannelMoments.of(raw), ...])
    maps.fit(moments)
    seen = maps.standardise(raw)                   # mean 0, spread 1
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ganad.errors import ConfigError
from ganad.features.backbone import Engine, FeatureExtractor
from ganad.features.settings import MapBackbone

CONSTANT = 1e-6
"""Channels whose spread is less than this share of the largest do not vary: it is rounding."""


@dataclass(frozen=True)
class ChannelMoments:
    """Mean and spread of C channels over many places, in float64; parts merge in any order."""

    n: int
    """Places seen."""
    mean: np.ndarray
    """(C,)."""
    squares: np.ndarray
    """Σ (x − mean)², (C,)."""

    @staticmethod
    def of(maps: Tensor) -> ChannelMoments:
        """Of maps (n, C, h, w)."""
        x = maps.double()
        mean = x.mean((0, 2, 3))
        squares = (x - mean[:, None, None]).square().sum((0, 2, 3))
        return ChannelMoments(
            maps.numel() // maps.shape[1], mean.cpu().numpy(), squares.cpu().numpy()
        )

    @staticmethod
    def merge(parts: Iterable[ChannelMoments]) -> ChannelMoments:
        """Of all parts together (Chan, Golub, LeVeque 1979); needs one part at least."""
        total, *rest = parts
        for part in rest:
            n = total.n + part.n
            step = part.mean - total.mean
            total = ChannelMoments(
                n,
                total.mean + step * (part.n / n),
                total.squares + part.squares + step**2 * (total.n * part.n / n),
            )
        return total

    @property
    def std(self) -> np.ndarray:
        """(C,), with 1/n."""
        return np.sqrt(self.squares / self.n)

    @property
    def usable_std(self) -> np.ndarray:
        """As std, but a channel that does not vary gets the median spread of the others, so that a
        change in it counts but does not explode."""
        std = self.std
        varies = std > CONSTANT * std.max()
        return np.where(varies, std, np.median(std[varies]) if varies.any() else 1.0)


class FeatureMaps(nn.Module):
    """A frozen network as a source of maps, always in eval mode.

    image_size: side in pixels of the images it is shown. The other arguments are those of
    FeatureExtractor. Raises ConfigError if the network has no maps, or any key is wrong.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        backbone: MapBackbone,
        image_size: int,
        seed: int = 0,
        load_weights: bool = True,
        size_key: str = "image_size",
    ) -> None:
        super().__init__()
        self.extractor = FeatureExtractor(
            backbone.name, image_size, None, backbone.weights, seed, load_weights, size_key
        )
        self.engine: Engine | None = None
        """Runs forward in a compiled form; see ganad.engines.backbone."""
        self._choose(backbone, image_size)
        sides = self.extractor.sides.values()
        self.grid = backbone.grid or min(
            max(sides), max(1, image_size // backbone.pixels_per_place)
        )
        """Places per side."""
        self.channels = sum(self.extractor.dimensions.values())
        """C, over all levels."""
        self.register_buffer("mean", torch.full((self.channels,), torch.nan))
        self.register_buffer("scale", torch.full((self.channels,), torch.nan))

    @property
    def identity(self) -> str:
        """All that the raw maps of an image depend on beside the image: a key to keep them by."""
        levels = ",".join(self.extractor.dimensions)
        return f"{self.extractor.name}-{self.extractor.digest}-{levels}-{self.grid}"

    def forward(self, images: Tensor) -> Tensor:
        """float (n, 1 or 3, h, w) in [-1, 1] -> raw maps, float32 (n, C, grid, grid)."""
        if self.engine is not None:
            (raw,) = self.engine(images)
            return raw
        found = self.extractor.maps(images)
        branches = [branch for level in found.values() for branch in level]
        return torch.cat([on_grid(smooth(branch.float()), self.grid) for branch in branches], 1)

    def fit(self, moments: ChannelMoments) -> None:
        """Take mean and spread from raw maps of normal images (see usable_std)."""
        self.mean.copy_(torch.from_numpy(moments.mean))
        self.scale.copy_(torch.from_numpy(moments.usable_std))

    def standardise(self, maps: Tensor) -> Tensor:
        """Raw maps (n, C, h, w) -> each channel with mean 0 and spread 1; nan before fit."""
        return (maps - self.mean[:, None, None]) / self.scale[:, None, None]

    def _choose(self, backbone: MapBackbone, image_size: int) -> None:
        """Keep the levels that are named, or those that MapBackbone.levels says."""
        sides, levels = self.extractor.sides, backbone.levels
        if levels is None and sides:
            finest, coarsest = backbone.finest, backbone.coarsest
            chosen = [s for s in sides.values() if finest <= image_size / s <= coarsest]
            chosen = chosen or [max(sides.values())]
            last = {side: level for level, side in sides.items() if side in chosen}
            levels = tuple(last.values())
        self.extractor.choose(levels or ())
        flat = [level for level in self.extractor.dimensions if level not in self.extractor.sides]
        if flat or not sides:
            raise ConfigError(
                f"backbone.levels={','.join(flat)}: {self.extractor.name} has no maps there: "
                f"use {', '.join(sides) or 'another network'}"
            )


def smooth(maps: Tensor) -> Tensor:
    """The mean of each place and its neighbours in 3×3."""
    return functional.avg_pool2d(maps, 3, stride=1, padding=1, count_include_pad=False)


def on_grid(maps: Tensor, side: int) -> Tensor:
    """Maps (n, d, h, w) resized to (n, d, side, side)."""
    if maps.shape[-1] > side:
        return functional.interpolate(maps, (side, side), mode="area")
    if maps.shape[-1] < side:
        return functional.interpolate(maps, (side, side), mode="bilinear", align_corners=False)
    return maps
