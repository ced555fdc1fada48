"""Makes one picture of originals, reconstructions and anomaly maps side by side."""

from __future__ import annotations

import numpy as np
from PIL import Image

MARGIN = 2


def picture_grid(
    originals: np.ndarray, reconstructions: np.ndarray | None, maps: np.ndarray | None
) -> Image.Image:
    """Draw one column per image, with rows for originals, reconstructions and maps if given.

    originals: uint8 (n, c, h, w). reconstructions: float (n, c, h, w) in [-1, 1]. maps: float
    (n, h, w), drawn from 0 and below (black) to the largest value of all maps (white).
    """
    rows = [_rgb(originals)]
    if reconstructions is not None:
        rebuilt = np.rint((np.clip(reconstructions, -1, 1) + 1) * 127.5).astype(np.uint8)
        rows.append(_rgb(rebuilt))
    if maps is not None:
        shown = np.clip(maps, 0, None)
        top = float(shown.max()) or 1.0
        rows.append(_rgb(np.rint(shown / top * 255).astype(np.uint8)[:, None]))
    height, width = originals.shape[2:]
    canvas = np.full(
        (
            len(rows) * (height + MARGIN) + MARGIN,
            len(originals) * (width + MARGIN) + MARGIN,
            3,
        ),
        255,
        np.uint8,
    )
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            top_edge, left = MARGIN + i * (height + MARGIN), MARGIN + j * (width + MARGIN)
            canvas[top_edge : top_edge + height, left : left + width] = tile
    return Image.fromarray(canvas)


def rows_of(grid: Image.Image, side: int) -> list[Image.Image]:
    """Cut a grid into its rows, without margins; side: height of an image in pixels."""
    step = side + MARGIN
    return [
        grid.crop((0, top, grid.width, top + side))
        for top in range(MARGIN, grid.height - side + 1, step)
    ]


def _rgb(images: np.ndarray) -> np.ndarray:
    """(n, 1 or 3, h, w) -> (n, h, w, 3)."""
    return np.repeat(images, 3 // images.shape[1], axis=1).transpose(0, 2, 3, 1)
