"""Encodes images and anomaly maps as small data URIs, which keep a page self-contained."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from ganad.report.scale import Scale

LONGEST_SIDE = 256
"""Longest side of a thumbnail, in pixels."""
HEAT_SIDE = 128
"""Longest side of a heat map, in pixels; the browser smooths it."""
LEVELS = 48

# Dark violet to pale yellow in even steps of lightness, so the order shows without colour, too.
_COLOURS = np.array(
    [[66, 10, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164]], float
)
_OPAQUE_FROM = 0.55
"""Fraction of the scale at which a heat map reaches its full opacity."""
_OPACITY = 0.82


def thumbnail_side(sizes: Sequence[tuple[int, int]]) -> int:
    """The side to decode images at: the longest side of all, but at most LONGEST_SIDE."""
    return min(LONGEST_SIDE, max((max(size) for size in sizes), default=LONGEST_SIDE))


def fitted(width: int, height: int, side: int) -> tuple[int, int]:
    """Width and height scaled so that the longer one equals `side`."""
    scale = side / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def thumbnail(pixels: np.ndarray, width: int, height: int) -> str:
    """Encode pixels, uint8 (c, s, s), of a width x height image in its own proportions."""
    square = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    image = square.resize(fitted(width, height, pixels.shape[-1]), Image.Resampling.LANCZOS)
    if len(pixels) == 3 and not (np.ptp(pixels, axis=0)).any():
        image = image.convert("L")
    if max(image.size) <= 64:
        return data_uri(image, "PNG", optimize=True)
    return data_uri(image, "JPEG", quality=82, optimize=True)


def heat_map(anomaly_map: np.ndarray, scale: Scale, width: int, height: int) -> str:
    """Encode a map (h, w) of a width x height image, transparent where it is low."""
    return _as_uri(heat_png(anomaly_map, scale, width, height), "png")


def heat_png(anomaly_map: np.ndarray, scale: Scale, width: int, height: int) -> bytes:
    """A PNG file of a map (h, w) of a width x height image, transparent where it is low."""
    level = np.clip((np.asarray(anomaly_map, float) - scale.low) / (scale.high - scale.low), 0, 1)
    size = fitted(width, height, min(HEAT_SIDE, max(anomaly_map.shape)))
    smooth = Image.fromarray(level.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    index = np.rint(np.clip(np.asarray(smooth), 0, 1) * (LEVELS - 1)).astype(np.uint8)
    image = Image.fromarray(index, "P")
    steps = np.linspace(0, 1, LEVELS)
    anchors = np.linspace(0, 1, len(_COLOURS))
    colours = np.stack([np.interp(steps, anchors, channel) for channel in _COLOURS.T], axis=1)
    image.putpalette(np.rint(colours).astype(np.uint8).tobytes())
    opacity = np.clip(steps / _OPAQUE_FROM, 0, 1) * _OPACITY * 255
    transparency = np.rint(opacity).astype(np.uint8).tobytes()
    return _encoded(image, "PNG", optimize=True, transparency=transparency)


def outline(mask: np.ndarray) -> str:
    """Encode the contour of a mask, bool (h, w)."""
    height, width = mask.shape
    size = fitted(width, height, min(LONGEST_SIDE, max(mask.shape)))
    small = np.asarray(Image.fromarray(mask.astype(np.float32)).resize(size, Image.Resampling.BOX))
    inside = np.pad(small > 0, 1)
    core = inside[1:-1, 1:-1].copy()
    for shift, axis in ((1, 0), (-1, 0), (1, 1), (-1, 1)):
        core &= np.roll(inside, shift, axis)[1:-1, 1:-1]
    image = Image.fromarray((inside[1:-1, 1:-1] & ~core).astype(np.uint8), "P")
    image.putpalette(bytes([0, 0, 0, 64, 255, 208]))
    return data_uri(image, "PNG", optimize=True, transparency=bytes([0, 255]))


def data_uri(image: Image.Image, kind: str, **options: object) -> str:
    """Encode an image as a data URI. kind: PNG or JPEG; options: those of Pillow's save."""
    return _as_uri(_encoded(image, kind, **options), kind.lower())


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _as_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
