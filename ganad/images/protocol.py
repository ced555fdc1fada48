"""What training reads its images from, wherever they are kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

PIECE = 512
"""Images taken out of a long array at a time, at most."""
PIECE_BYTES = 2**27
"""Their bytes, at most; what networks make of them comes on top."""


class Images(Protocol):
    """Images of one size, uint8 (n, c, h, w), taken by position.

    A trainer takes them in a thread of its own, one call at a time.
    """

    def __len__(self) -> int: ...
    @property
    def image_bytes(self) -> int:
        """Bytes of one image."""

    def take(self, positions: np.ndarray) -> np.ndarray:
        """Images at these positions, in this order: uint8 (k, c, h, w)."""

    def crops(self, positions: np.ndarray, corners: np.ndarray, side: int) -> np.ndarray:
        """A square of each image, its top and left in corners, int (k, 2): uint8 (k, c, s, s)."""


class Subset:
    """Some of the images, renumbered from 0."""

    def __init__(self, images: Images, positions: np.ndarray) -> None:
        self.images, self.positions = images, positions

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def image_bytes(self) -> int:
        """Bytes of one image."""
        return self.images.image_bytes

    def take(self, positions: np.ndarray) -> np.ndarray:
        """Images at these positions of the subset: uint8 (k, c, h, w)."""
        return self.images.take(self.positions[positions])

    def crops(self, positions: np.ndarray, corners: np.ndarray, side: int) -> np.ndarray:
        """A square of each image at these positions: uint8 (k, c, side, side)."""
        return self.images.crops(self.positions[positions], corners, side)


def pieces(images: Images, num: int) -> Iterator[slice]:
    """Which of num positions to take at a time, so that large images fit into memory as well."""
    at_once = max(1, min(PIECE, PIECE_BYTES // images.image_bytes))
    return (slice(start, min(start + at_once, num)) for start in range(0, num, at_once))
