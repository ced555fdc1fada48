"""Decoded images kept as memory-mapped uint8 arrays, so that no epoch decodes twice."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ganad.archive import storage


class Shards:
    """Several .npy files of uint8 images (n, c, h, w), read as one long array."""

    def __init__(self, arrays: Sequence[np.ndarray]) -> None:
        if not arrays:
            raise ValueError("at least one array is needed")
        self.arrays = list(arrays)
        self.starts = np.cumsum([0] + [len(array) for array in arrays])

    @classmethod
    def open(cls, uris: Sequence[str], cache: Path) -> Shards:
        """Map local files in place; copy remote ones into the folder `cache` first."""
        paths = []
        for number, uri in enumerate(uris):
            path = Path(uri)
            if storage.is_remote(uri):
                path = cache / f"{number:06d}.npy"
                if not path.exists():
                    storage.write_bytes(str(path), storage.read_bytes(uri))
            paths.append(path)
        return cls([np.load(path, mmap_mode="r", allow_pickle=False) for path in paths])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def take(self, positions: np.ndarray) -> np.ndarray:
        """Images at these positions, in this order, copied: uint8 (k, c, h, w)."""
        positions = np.asarray(positions)
        result = np.empty((len(positions), *self.arrays[0].shape[1:]), np.uint8)
        owners = self._owners(positions)
        for owner in np.unique(owners):
            chosen = owners == owner
            result[chosen] = self.arrays[owner][positions[chosen] - self.starts[owner]]
        return result

    def crops(self, positions: np.ndarray, corners: np.ndarray, side: int) -> np.ndarray:
        """A square of each image, read without the rest of it: uint8 (k, c, side, side).

        corners: int (k, 2), the top and left of each square.
        """
        result = np.empty((len(positions), self.arrays[0].shape[1], side, side), np.uint8)
        for k, (owner, (top, left)) in enumerate(
            zip(self._owners(positions), corners, strict=True)
        ):
            image = self.arrays[owner][positions[k] - self.starts[owner]]
            result[k] = image[:, top : top + side, left : left + side]
        return result

    def _owners(self, positions: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.starts, positions, side="right") - 1


class Subset:
    """Some images of an array, renumbered from 0."""

    def __init__(self, images: Shards, positions: np.ndarray) -> None:
        self.images, self.positions = images, positions

    def __len__(self) -> int:
        return len(self.positions)

    def take(self, positions: np.ndarray) -> np.ndarray:
        """Images at these positions of the subset: uint8 (k, c, h, w)."""
        return self.images.take(self.positions[positions])

    def crops(self, positions: np.ndarray, corners: np.ndarray, side: int) -> np.ndarray:
        """A square of each image at these positions: uint8 (k, c, side, side)."""
        return self.images.crops(self.positions[positions], corners, side)


def write_shard(uri: str, images: np.ndarray) -> None:
    """Write uint8 images (n, c, h, w) as one .npy file, atomically."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(images), allow_pickle=False)
    storage.write_bytes(uri, buffer.getvalue())
