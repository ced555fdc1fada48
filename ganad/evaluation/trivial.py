"""Trivial detectors based on brightness, as baselines that a real detector must beat."""

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
    """Mean grey levels in 0..255, float64 (n,), and ids of the readable images among the rows of a
    manifest."""
    levels: dict[str, float] = {}
    for decoded, ids in from_rows(rows, BRIGHTNESS):
        levels |= _levels(decoded, ids)
    return np.array(list(levels.values())), list(levels)


def brightness_of(
    table: ScoreTable, batches: Iterable[Sequence[Mapping[str, Any]]]
) -> dict[str, float]:
    """image_id -> mean grey level of the rows of a score table; unavailable images are left out."""
    levels: dict[str, float] = {}
    for rows in batches:
        decoded = fetch(table, rows, BRIGHTNESS)
        levels |= _levels(decoded, [row["image_id"] for row in rows])
    return levels


def _levels(decoded: Sequence[Decoded], ids: Sequence[str]) -> dict[str, float]:
    return {
        image_id: float(image.image.mean())
        for image, image_id in zip(decoded, ids, strict=True)
        if image.image is not None
    }


def trivial_scores(usual: float, levels: np.ndarray) -> dict[str, np.ndarray]:
    """Scores of images by their mean brightness, name -> float64 (n,). On some public data sets one
    of them reaches an AUROC of 1. usual: typical brightness of a normal image."""
    return {
        "constant": np.zeros(len(levels)),
        "bright": levels,
        "dark": -levels,
        "unusual brightness": np.abs(levels - usual),
    }
