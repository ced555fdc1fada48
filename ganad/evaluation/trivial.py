"""Detectors without any idea, which a figure must beat before it means anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ganad.images.decode import Decoded, Preprocessing
from ganad.images.inputs import from_rows
from ganad.scores.refetch import fetch
from ganad.scores.table import ScoreTable

BRIGHTNESS = Preprocessing(image_size=32, channels=1)


def mean_brightness(rows: Iterable[Mapping[str, Any]]) -> tuple[np.ndarray, list[str]]:
    """Rows of a manifest -> mean grey level in 0..255, float64 (n,), and the ids of the images
    that can be read."""
    levels: dict[str, float] = {}
    for decoded, ids in from_rows(rows, BRIGHTNESS):
        levels |= _levels(decoded, ids)
    return np.array(list(levels.values())), list(levels)


def brightness_of(
    table: ScoreTable, batches: Iterable[Sequence[Mapping[str, Any]]]
) -> dict[str, float]:
    """Rows of a score table -> mean grey level by image_id; images that are gone are left out."""
    levels: dict[str, float] = {}
    for rows in batches:
        decoded = fetch(table, rows, BRIGHTNESS)
        levels |= _levels(decoded, [row["image_id"] for row in rows])
    return levels


def _levels(decoded: Sequence[Decoded], ids: Sequence[str]) -> dict[str, float]:
    return {
        image_id: float(one.image.mean())
        for one, image_id in zip(decoded, ids, strict=True)
        if one.image is not None
    }


def trivial_scores(usual: float, levels: np.ndarray) -> dict[str, np.ndarray]:
    """Scores of images by their mean brightness, float64 (n,); on some public sets these reach an
    AUROC of 1. usual: the brightness of a normal image."""
    return {
        "constant": np.zeros(len(levels)),
        "bright": levels,
        "dark": -levels,
        "unusual brightness": np.abs(levels - usual),
    }
