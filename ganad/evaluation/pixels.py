"""Compares anomaly maps of a table's images, which are recomputed, with their masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from ganad.archive.masks import is_image
from ganad.errors import ArchiveError, NoMapsError
from ganad.evaluation.labelled import Labelled, images
from ganad.evaluation.metrics import PixelMetrics, PixelResult
from ganad.images.load import read_image
from ganad.scores.refetch import Provider
from ganad.storage import files as storage

PIXEL_BATCH = 32
LONGEST_SIDE = 1024
"""Pixel metrics are computed at the image's own size, but at most this many pixels per side."""


def pixel_figures(labelled: Labelled, model: str, provider: Provider) -> PixelResult:
    """Pixel AUROC and AUPRO of a model. No image is fetched if there is nothing to compare.

    Images that cannot be compared are reported in the notes of `labelled`. Raises ModelError if the
    model is gone.
    """
    if not labelled.num_masks(model):
        return PixelResult(0, 0, reason="no abnormal image has a mask")
    try:
        map_images = provider(labelled.table, model)
    except NoMapsError as error:
        return PixelResult(0, 0, reason=str(error))
    metrics = PixelMetrics()
    num_unmasked = num_unmapped = 0
    unfit: list[str] = []
    for rows in labelled.rows(model, PIXEL_BATCH):
        masked = [row for row in rows if row["mask"] or not row["abnormal"]]
        num_unmasked += len(rows) - len(masked)
        if not masked:
            continue
        for row, anomaly_map in zip(masked, map_images(masked), strict=True):
            try:
                mask = read_mask(row["mask"]) if row["abnormal"] else None
            except ArchiveError:
                mask = np.zeros((1, 1), bool)
            if mask is not None and mask.any() and (problem := misfit(mask, row)):
                unfit.append(problem)
                continue
            if mask is not None and not mask.any():
                num_unmasked += 1
                continue
            if anomaly_map is None:
                num_unmapped += 1
                continue
            metrics.add(*at_image_size(anomaly_map, mask, row))
    left_out = f"{model}, not in the pixel metrics:"
    if num_unmasked:
        labelled.notes.append(
            f"{left_out} {images(num_unmasked)} of defects without a readable mask"
        )
    if unfit:
        labelled.notes.append(
            f"{left_out} {images(len(unfit))} whose mask has another size or orientation, the "
            f"first {unfit[0]}"
        )
    if num_unmapped:
        labelled.notes.append(f"{left_out} {images(num_unmapped)} that can no longer be fetched")
    return metrics.result()


def read_mask(uri: str) -> np.ndarray:
    """Read a mask as bool (h, w) from an image, or as the union of all images in a folder. Raises
    ArchiveError."""
    if is_image(uri) or not storage.is_folder(uri):
        return _read_mask_file(uri)
    names = [name for name in storage.list_names(uri) if is_image(name)]
    masks = [_read_mask_file(storage.join(uri, name)) for name in names]
    if len({mask.shape for mask in masks}) != 1:
        raise ArchiveError(
            f"{uri}: its {len(masks)} masks differ in size: make each as large as the image"
        )
    return np.logical_or.reduce(masks)


def misfit(mask: np.ndarray, row: Mapping[str, Any]) -> str | None:
    """The reason why a mask does not fit the image of this row; None if it fits."""
    height, width = mask.shape
    if (width, height) == (row["width"], row["height"]):
        return None
    return (
        f"{row['mask']} with {width} x {height} pixels for an image of {row['width']} x "
        f"{row['height']}"
    )


def _read_mask_file(uri: str) -> np.ndarray:
    """Pixels above half of the maximum, which suits 0/1 masks, 0/255 masks and smooth edges."""
    image = read_image(uri)
    if image.array is None:
        raise ArchiveError(f"{uri} is not a mask ({image.error}): give a PNG")
    values = image.array
    if values.ndim == 3:
        values = np.asarray(Image.fromarray(values).convert("L"))
    return (values > values.max() / 2) & (values > 0)


def at_image_size(
    anomaly_map: np.ndarray, mask: np.ndarray | None, row: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Resize map (float32) and mask (bool) to one shape: the mask's or the image's, but at most
    LONGEST_SIDE per side.

    If a mask shrinks, a pixel with any defect in it counts as defect, so that small ones remain.
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
