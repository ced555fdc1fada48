"""Decoded images, or what networks see of them, kept as memory-mapped arrays, so that no epoch
makes them twice."""

from __future__ import annotations

import fcntl
import hashlib
import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ganad.storage import files as storage


class Shards:
    """Several .npy files of images, uint8 (n, c, h, w), or of raw maps, float16 (n, C, g, g), read
    as one long array."""

    def __init__(self, arrays: Sequence[np.ndarray]) -> None:
        if not arrays:
            raise ValueError("at least one array is needed")
        self.arrays = list(arrays)
        self.starts = np.cumsum([0] + [len(array) for array in arrays])

    @classmethod
    def open(cls, uris: Sequence[str], copies: Path) -> Shards:
        """Map local files in place; copy remote ones into the folder first. Processes that give
        the same folder share the copies, and once all have opened them it may be removed."""
        paths = []
        for number, uri in enumerate(uris):
            path = Path(uri)
            if storage.is_remote(uri):
                path = copies / f"{number:06d}.npy"
                with _alone(copies):  # the first process copies, the others wait for it
                    if not path.exists():
                        storage.write_bytes(str(path), storage.read_bytes(uri))
            paths.append(path)
        return cls([np.load(path, mmap_mode="r", allow_pickle=False) for path in paths])

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def image_bytes(self) -> int:
        """Bytes of one image."""
        return math.prod(self.arrays[0].shape[1:]) * self.arrays[0].itemsize

    def take(self, positions: np.ndarray) -> np.ndarray:
        """Images at these positions, in this order, copied: (k, c, h, w) of their type."""
        positions = np.asarray(positions)
        result = np.empty((len(positions), *self.arrays[0].shape[1:]), self.arrays[0].dtype)
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


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """While no other process of this machine is in the same block."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def shard_bytes(images: np.ndarray) -> bytes:
    """Images or raw maps (n, c, h, w) as the bytes of an .npy file."""
    return _header(images.shape, images.dtype) + np.ascontiguousarray(images).tobytes()


def digest_of(data: bytes) -> str:
    """A checksum of a shard's bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def is_intact(uri: str, shape: tuple[int, ...], digest: str, dtype: str = "uint8") -> bool:
    """Read a whole shard; True if it has this shape and type and its bytes have this digest.

    Raises ArchiveError if the storage does not answer.
    """
    header = _header(shape, np.dtype(dtype))
    if storage.size_of(uri) != len(header) + math.prod(shape) * np.dtype(dtype).itemsize:
        return False
    data = storage.read_bytes(uri)
    return data.startswith(header) and digest_of(data) == digest


def _header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    buffer = io.BytesIO()
    facts = {"descr": dtype.str, "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(buffer, facts)
    return buffer.getvalue()
