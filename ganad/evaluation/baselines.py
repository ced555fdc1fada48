"""Detectors without any idea, which a figure must beat before it means anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ganad.images.decode import Preprocessing
from ganad.images.inputs import from_rows

BRIGHTNESS = Preprocessing(image_size=32, channels=1)


def mean_brightness(rows: Iterable[Mapping[str, Any]]) -> tuple[np.ndarray, list[str]]:
    """Mean grey level in 0..255, float64 (n,), and the ids of the images that can be read."""
    levels: list[float] = []
    ids: list[str] = []
    for decoded, some in from_rows(rows, BRIGHTNESS):
        for one, image_id in zip(decoded, some, strict=True):
            if one.image is not None:
                levels.append(float(one.image.mean()))
                ids.append(image_id)
    return np.array(levels), ids


def trivial_scores(train: np.ndarray, test: np.ndarray) -> dict[str, np.ndarray]:
    """Scores of the test images by mean brightness; on some public sets these reach AUROC 1."""
    return {
        "constant": np.zeros(len(test)),
        "bright": test,
        "dark": -test,
        "unusual brightness": np.abs(test - train.mean()),
    }
