"""Anomaly maps of a table's images beside their masks. The maps are computed again."""

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
"""Pixel figures are taken at the image's own size, at most this."""


def pixel_figures(labelled: Labelled, model: str, provider: Provider) -> PixelResult:
    """Pixel AUROC and AUPRO of a model. Where there is nothing to compare, no image is fetched.

    Images that cannot be compared are counted in the notes of `labelled`. Raises ModelError if the
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
        for row, one in zip(masked, map_images(masked), strict=True):
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
            if one is None:
                num_unmapped += 1
                continue
            metrics.add(*at_image_size(one, mask, row))
    left_out = f"{model}, not in the pixel figures:"
    if num_unmasked:
        labelled.notes.append(
            f"{left_out} {images(num_unmasked)} of defects that have no readable mask"
        )
    if unfit:
        labelled.notes.append(
            f"{left_out} {images(len(unfit))} with a mask of another size or orientation, the "
            f"first {unfit[0]}"
        )
    if num_unmapped:
        labelled.notes.append(f"{left_out} {images(num_unmapped)} that cannot be fetched any more")
    return metrics.result()


def read_mask(uri: str) -> np.ndarray:
    """A mask as bool (h, w), from an image or from a folder of images that show a defect each.
    Raises ArchiveError."""
    if is_image(uri) or not storage.is_folder(uri):
        return _read_mask_file(uri)
    names = [name for name in storage.list_names(uri) if is_image(name)]
    masks = [_read_mask_file(storage.join(uri, name)) for name in names]
    if len({mask.shape for mask in masks}) != 1:
        raise ArchiveError(f"{uri}: its {len(masks)} masks are not of one size: give the image's")
    return np.logical_or.reduce(masks)


def misfit(mask: np.ndarray, row: Mapping[str, Any]) -> str | None:
    """Why a mask is not that of the image in this row; None if it fits."""
    height, width = mask.shape
    if (width, height) == (row["width"], row["height"]):
        return None
    return (
        f"{row['mask']} with {width} x {height} pixels for an image of {row['width']} x "
        f"{row['height']}"
    )


def _read_mask_file(uri: str) -> np.ndarray:
    """The pixels that are brighter than half of the brightest: 0/1 masks, 0/255 masks and smooth
    edges alike."""
    found = read_image(uri)
    if found.array is None:
        raise ArchiveError(f"{uri} is not a mask ({found.error}): give a PNG")
    values = found.array
    if values.ndim == 3:
        values = np.asarray(Image.fromarray(values).convert("L"))
    return (values > values.max() / 2) & (values > 0)


def at_image_size(
    anomaly_map: np.ndarray, mask: np.ndarray | None, row: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Map (float32) and mask (bool) of one shape: the mask's or the image's, at most 1024 a side.

    Where a mask shrinks, a pixel that holds any defect is a defect: small ones do not vanish.
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
