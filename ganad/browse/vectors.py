"""A small vector of each shown image, to group near duplicates and to find similar ones."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ganad.images.decode import Preprocessing
from ganad.scores.refetch import fetch
from ganad.scores.table import ScoreTable

SIDE = 16
"""Images are compared at 16 x 16 pixels."""
SAME = 0.8
"""Cosine from which two images are near duplicates."""
MAX_GROUPED = 2000
"""Images that are grouped, the highest scores first."""
NUM_TYPICAL = 200
"""Images around the median score: their mean is subtracted, and similar ones are sought there."""
_BATCH = 64

Row = Mapping[str, Any]


class Vectors:
    """Unit vectors of images: their pixels less the mean of typical images.

    The mean is what all images of the archive share; what is left is how this one differs, so two
    photographs of the same defect are alike and two good parts are not. shape (n, 768), float32.
    """

    def __init__(self, table: ScoreTable, typical: Sequence[Row]) -> None:
        self.table, self.typical = table, list(typical)
        self._known: dict[str, np.ndarray | None] = {}
        self._mean: np.ndarray | None = None
        self._lock = threading.Lock()

    def of(self, rows: Sequence[Row]) -> list[np.ndarray | None]:
        """A unit vector for each row; None for an image that cannot be fetched or decoded."""
        with self._lock:
            if self._mean is None:
                found = [one for one in self._pixels(self.typical) if one is not None]
                self._mean = np.mean(found, axis=0) if found else np.zeros(3 * SIDE * SIDE)
            mean = self._mean
            raw = self._pixels(rows)
        return [None if one is None else _unit(one - mean) for one in raw]

    def similar(self, row: Row, num: int = 6) -> list[Row]:
        """The typical images most like this one, nearest first: what it should have looked like."""
        (own,) = self.of([row])
        if own is None:
            return []
        # Compared before the mean is taken away: near in pixels, not in how they differ.
        with self._lock:
            (pixels,) = self._pixels([row])
            others = self._pixels(self.typical)
        distances = [
            (float(np.linalg.norm(pixels - one)), place)
            for place, one in enumerate(others)
            if pixels is not None
            and one is not None
            and self.typical[place]["image_id"] != row["image_id"]
        ]
        return [self.typical[place] for _, place in sorted(distances)[:num]]

    def _pixels(self, rows: Sequence[Row]) -> list[np.ndarray | None]:
        missing = [row for row in rows if row["image_id"] not in self._known]
        for start in range(0, len(missing), _BATCH):
            part = missing[start : start + _BATCH]
            images = fetch(self.table, part, Preprocessing(image_size=SIDE))
            for row, decoded in zip(part, images, strict=True):
                image = decoded.image
                self._known[row["image_id"]] = (
                    None if image is None else image.astype(np.float32).ravel() / 255
                )
        return [self._known[row["image_id"]] for row in rows]


def _unit(vector: np.ndarray) -> np.ndarray:
    length = float(np.linalg.norm(vector))
    return (vector / length if length > 0 else vector).astype(np.float32)


def grouped(vectors: Sequence[np.ndarray | None], same: float = SAME) -> list[list[int]]:
    """Positions by group, each group led by its first position.

    Each image joins the first leader it is at least `same` to, by cosine, else it leads a group of
    its own. The order of the images is that of their scores, so a leader is the worst of its
    group. Images without a vector stand alone.
    """
    groups: list[list[int]] = []
    leaders: list[np.ndarray] = []
    places: list[int] = []
    for position, vector in enumerate(vectors):
        if vector is None or not vector.any():
            groups.append([position])
            continue
        if leaders:
            likeness = np.stack(leaders) @ vector
            best = int(np.argmax(likeness >= same))
            if likeness[best] >= same:
                groups[places[best]].append(position)
                continue
        leaders.append(vector)
        places.append(len(groups))
        groups.append([position])
    return groups
