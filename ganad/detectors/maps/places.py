"""Mean and scatter of the vectors at every place of an image, over many images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PlaceMoments:
    """Moments at P places in d channels, in float64; parts merge in any order.

    Packed like this, 784 places in 100 channels take 32 MB.
    """

    n: int
    """Images."""
    mean: np.ndarray
    """(P, d)."""
    scatter: np.ndarray
    """Σ y yᵀ with y = x − mean, its lower triangle row by row: (P, d (d + 1) / 2)."""

    @staticmethod
    def empty(places: int, width: int) -> PlaceMoments:
        """Of no images yet."""
        zeros = np.zeros((places, width * (width + 1) // 2))
        return PlaceMoments(0, np.zeros((places, width)), zeros)

    @staticmethod
    def of(vectors: np.ndarray) -> PlaceMoments:
        """Of images' vectors (n, P, d)."""
        x = np.ascontiguousarray(vectors.transpose(1, 0, 2), np.float64)
        mean = x.mean(1)
        x -= mean[:, None]
        return PlaceMoments(x.shape[1], mean, pack(x.transpose(0, 2, 1) @ x))

    @staticmethod
    def merge(parts: Iterable[PlaceMoments]) -> PlaceMoments:
        """Of all parts together (Chan, Golub, LeVeque 1979); needs one part at least."""
        total, *rest = parts
        for part in rest:
            n = total.n + part.n
            if not part.n:
                continue
            step = part.mean - total.mean
            # Scaled first, so that the outer products are the weighted ones.
            scaled = step * np.sqrt(total.n * part.n / n)
            total = PlaceMoments(
                n,
                total.mean + step * (part.n / n),
                total.scatter + part.scatter + pack(scaled[:, :, None] * scaled[:, None]),
            )
        return total

    def covariance(self) -> np.ndarray:
        """(P, d, d), with 1 / (n − 1) as in PaDiM; needs two images."""
        return unpack(self.scatter, self.mean.shape[1]) / (self.n - 1)


def pack(matrices: np.ndarray) -> np.ndarray:
    """Symmetric (P, d, d) -> lower triangles (P, d (d + 1) / 2)."""
    rows, columns = np.tril_indices(matrices.shape[-1])
    return matrices[:, rows, columns]


def unpack(triangles: np.ndarray, width: int) -> np.ndarray:
    """The inverse of pack."""
    rows, columns = np.tril_indices(width)
    matrices = np.empty((len(triangles), width, width))
    matrices[:, rows, columns] = triangles
    matrices[:, columns, rows] = triangles
    return matrices
