"""Quality of the models of a score table: over all labelled images, and for each kind of defect."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from ganad.errors import ArchiveError
from ganad.evaluation.labelled import Labelled, images
from ganad.evaluation.metrics import Flagged, PixelMetrics, PixelResult, Ranking, flagged, ranking
from ganad.scores.refetch import MapImages, map_provider
from ganad.scores.table import ScoreTable
from ganad.storage import files as storage

ALPHA = 0.05
"""The p-value below which an image counts as flagged."""
PIXEL_BATCH = 32
LONGEST_SIDE = 1024
"""Pixel figures are taken at the image's own size, at most this."""


@dataclass(frozen=True)
class Group:
    """One model on all normal images and the abnormal ones of one label (None: of every label)."""

    model: str
    label: str | None
    ranking: Ranking
    flagged: Flagged | None
    """None where the model has no calibration and so no p-values."""


@dataclass
class Evaluation:
    """groups: by model, all labels first. pixels: by model, if asked for. notes: what a reader
    must know, one sentence each."""

    groups: list[Group] = field(default_factory=list)
    pixels: dict[str, PixelResult] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def evaluate(
    table: ScoreTable,
    labels: str | None = None,
    pixels: bool = False,
    provider: Callable[[ScoreTable, str], MapImages] = map_provider,
) -> Evaluation:
    """Measure every model of a table; labels as for Labelled. pixels computes the maps anew.

    Raises TableError without labels, ModelError where pixels are asked for and a model is gone.
    """
    labelled = Labelled(table, labels)
    result = Evaluation(notes=labelled.notes)
    for model in table.models:
        groups = groups_of(labelled, model)
        result.groups += groups
        if groups[0].flagged is None:
            result.notes.append(f"{model} was not calibrated, so its scores have no p-values")
        if pixels:
            result.pixels[model] = _pixels(labelled, model, provider(table, model), result.notes)
    labelled.session.close()
    return result


def groups_of(labelled: Labelled, model: str) -> list[Group]:
    """All images first; then, if there are several, each abnormal label against all normals."""
    arrays = labelled.arrays(model)
    return [
        Group(
            model,
            label,
            ranking(arrays.scores[those], arrays.abnormal[those]),
            None
            if arrays.p_values is None
            else flagged(arrays.p_values[those], arrays.abnormal[those], ALPHA),
        )
        for label, those in by_kind(arrays.abnormal, arrays.labels)
    ]


def by_kind(abnormal: np.ndarray, labels: np.ndarray) -> list[tuple[str | None, np.ndarray]]:
    """(None, all images); then, if there are several abnormal labels, each with the images that
    measure it: its own and all normal ones. abnormal: bool (n,), labels: str (n,)."""
    kinds = sorted(set(labels[abnormal].tolist()))
    chosen: list[tuple[str | None, np.ndarray]] = [(None, np.ones(len(abnormal), bool))]
    if len(kinds) > 1:
        chosen += [(kind, ~abnormal | (labels == kind)) for kind in kinds]
    return chosen


def _pixels(labelled: Labelled, model: str, map_images: MapImages, notes: list[str]) -> PixelResult:
    metrics = PixelMetrics()
    num_unmasked = num_unmapped = 0
    for rows in labelled.rows(model, PIXEL_BATCH):
        masked = [row for row in rows if row["mask"] or not row["abnormal"]]
        num_unmasked += len(rows) - len(masked)
        if not masked:
            continue
        for row, one in zip(masked, map_images(masked), strict=True):
            try:
                mask = read_mask(row["mask"]) if row["abnormal"] else None
            except ArchiveError:
                mask = np.zeros((1, 1), bool)
            if mask is not None and not mask.any():
                num_unmasked += 1
                continue
            if one is None:
                num_unmapped += 1
                continue
            metrics.add(*at_image_size(one, mask, row))
    if num_unmasked:
        notes.append(
            f"{model}, not in the pixel figures: {images(num_unmasked)} of defects that no "
            f"mask shows"
        )
    if num_unmapped:
        notes.append(
            f"{model}, not in the pixel figures: {images(num_unmapped)} without a map, for they "
            f"cannot be fetched any more or the detector makes none"
        )
    return metrics.result()


def read_mask(uri: str) -> np.ndarray:
    """A mask image as bool (h, w): brighter than half of its brightest pixel (0/1 masks, 0/255
    masks and smooth edges alike). Raises ArchiveError."""
    data = storage.read_bytes(uri)
    try:
        values = np.asarray(Image.open(io.BytesIO(data)).convert("L"))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ArchiveError(f"{uri}: is no mask ({error}); give a PNG") from None
    return (values > values.max() / 2) & (values > 0)


def at_image_size(
    anomaly_map: np.ndarray, mask: np.ndarray | None, row: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Map (float32) and mask (bool) of one shape: the mask's or the image's, at most 1024 a side.

    Where a mask shrinks, a pixel that holds any defect is one: small defects do not vanish.
    """
    height, width = mask.shape if mask is not None else (row["height"], row["width"])
    shrink = max(1.0, max(height, width) / LONGEST_SIDE)
    size = (max(1, round(width / shrink)), max(1, round(height / shrink)))
    values = Image.fromarray(np.asarray(anomaly_map, np.float32))
    resized = np.asarray(values.resize(size, Image.Resampling.BILINEAR))
    if mask is not None and shrink > 1:
        shares = Image.fromarray(mask.astype(np.float32)).resize(size, Image.Resampling.BOX)
        mask = np.asarray(shares) > 0
    return resized, mask
