"""The image sizes and named choices of the shared networks. Imports no torch, for configs."""

from __future__ import annotations

from typing import Literal

from ganad.errors import ConfigError

LatentRange = Literal["none", "tanh", "3tanh", "0.5tanh", "clip", "3clip", "0.5clip"]
"""How E(x) is kept in the range where G was trained (z_reg in the authors' code)."""
BIGAN_SIZES = (16, 28, 32, 64, 128, 256)
"""Sides in pixels that the networks of ganad.networks.bigan take."""


def check_size(size: int, key: str = "image_size", smallest: int = 16, largest: int = 256) -> None:
    """Raise ConfigError unless size, which comes from the config key `key`, is 4·2^m within the
    bounds, as the pyramids need it."""
    sizes = [4 * 2**m for m in range(1, 12) if smallest <= 4 * 2**m <= largest]
    if size not in sizes:
        raise ConfigError(
            f"{key}={size} does not halve down to 4 pixels: use one of {', '.join(map(str, sizes))}"
        )


def check_bigan_size(size: int, key: str = "image_size") -> None:
    """Raise ConfigError unless size, which comes from key, is one that the networks take."""
    if size not in BIGAN_SIZES:
        raise ConfigError(
            f"{key}={size} does not halve down to 7 or 8 pixels: "
            f"use one of {', '.join(map(str, BIGAN_SIZES))}"
        )
