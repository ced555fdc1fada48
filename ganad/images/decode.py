"""Bytes of one image file -> uint8 pixels, or an error text. Training, scoring, masks and reports
all decode here. ganad/images/README.md states the policy for every kind of image.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import ExifTags, Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile
from pydantic import BaseModel, ConfigDict, Field

from ganad.images.header import BITS, PHOTOMETRIC, TRUNCATED, RefusedError, open_image

MAX_PIXELS = 200_000_000
BAND_PIXELS = 2**22
"""Pixels converted at a time: a large image is held once as it was decoded and once as RGB."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Preprocessing(BaseModel):
    """How an image becomes the input of a detector; saved with a model and never changed."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    image_size: int = Field(ge=1)
    """Side in pixels of the square that images are resized to."""
    channels: Literal[1, 3] = 3
    """1 = grey, 3 = RGB."""
    max_pixels: int = Field(default=MAX_PIXELS, ge=1)
    """Images with more pixels are refused as decompression bombs."""

    @property
    def image_bytes(self) -> int:
        """Bytes of a decoded image."""
        return self.channels * self.image_size**2


@dataclass(frozen=True, eq=False)
class Decoded:
    """One image ready for a detector, or the reason why there is none.

    image: uint8 (channels, image_size, image_size). width, height: those of the whole upright
    image. error: one line. Either error is None or the other three are.
    """

    image: np.ndarray | None
    width: int | None
    height: int | None
    error: str | None


@dataclass(frozen=True, eq=False)
class Values:
    """The upright pixels of a whole image, or the reason why there are none.

    array: uint8 (h, w) or (h, w, 3), uint16 (h, w) for grey of more than 8 bits as it was stored,
    black at 0. error: one line. One of the two is None.
    """

    array: np.ndarray | None
    error: str | None


def failed(error: str) -> Decoded:
    """An image that could not be fetched or decoded, and why."""
    return Decoded(None, None, None, error)


def decode(data: bytes, preprocessing: Preprocessing) -> Decoded:
    """The pixels of one image file at the size of a detector. Never raises."""
    try:
        return _decode(data, preprocessing)
    except Exception as error:
        return failed(_in_one_line(error))


def decode_values(data: bytes, max_pixels: int = MAX_PIXELS) -> Values:
    """The pixels of one image file at its own size, such as a mask. Never raises."""
    try:
        image = open_image(data, max_pixels)
        image.load()
        orientation = _orientation(image)
        upright: Image.Image
        if image.mode.startswith("I"):
            values = np.asarray(image).astype(np.uint16)
            upright = Image.fromarray(65535 - values if _is_inverted(image) else values)
        else:
            upright = _plain(image)
        return Values(np.array(_turned(upright, orientation)), None)
    except Exception as error:
        return Values(None, _in_one_line(error))


def _decode(data: bytes, preprocessing: Preprocessing) -> Decoded:
    opened = open_image(data, preprocessing.max_pixels)
    width, height = opened.size
    size = preprocessing.image_size
    if isinstance(opened, JpegImageFile):
        opened.draft(None, (2 * size, 2 * size))
    opened.load()  # turns a TIFF upright by itself, and forgets its orientation
    orientation = _orientation(opened)
    image = _plain(opened)
    del opened  # at most two copies of a large image are in memory at a time
    image = _turned(image, orientation)
    if orientation in _TURNS and orientation >= 5:
        width, height = height, width
    if preprocessing.channels == 1:
        image = image.convert("L")
    if size * image.height > preprocessing.max_pixels:
        # Pillow resizes rows first: of a very narrow and long image that would be a huge one.
        image = image.resize((image.width, size), Image.Resampling.BILINEAR)
    # Grey is resized as grey and repeated afterwards: the same pixels in a third of the time.
    pixels = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[None], preprocessing.channels, axis=0)
    else:
        pixels = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    return Decoded(pixels, width, height, None)


def _orientation(image: ImageFile.ImageFile) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return 1  # damaged EXIF says nothing about the pixels


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def _plain(image: ImageFile.ImageFile) -> Image.Image:
    """Any loaded image as "L" or "RGB", without transparency."""
    if image.mode in ("L", "RGB") and not image.has_transparency_data:
        return image
    table = _depth_table(image) if image.mode.startswith("I") else None
    rows = max(1, BAND_PIXELS // image.width)
    if rows >= image.height:
        return _plain_band(image, table)
    plain: Image.Image | None = None
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        band = _plain_band(image.crop(box), table)
        plain = plain or Image.new(band.mode, image.size)
        plain.paste(band, box)
    assert plain is not None
    return plain


def _plain_band(image: Image.Image, table: np.ndarray | None) -> Image.Image:
    if table is not None:
        return Image.fromarray(table[np.asarray(image)])
    if image.has_transparency_data:
        return _over_black(image)
    return image.convert("L" if image.mode == "1" else "RGB")


def _over_black(image: Image.Image) -> Image.Image:
    is_grey = image.mode in ("1", "L", "LA", "La")
    if image.mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    image = image.convert("RGBA")
    flat = Image.new("RGB", image.size)
    flat.paste(image, mask=image.getchannel("A"))
    return flat.getchannel("R") if is_grey else flat


def _depth_table(image: ImageFile.ImageFile) -> np.ndarray:
    """uint8 (65536,): what becomes of each value of a grey image of more than 8 bits."""
    is_12_bit = isinstance(image, TiffImageFile) and image.tag_v2.get(BITS) in (12, (12,))
    table = _scaled(12 if is_12_bit else 16)
    if _is_inverted(image):
        table = table[::-1]
    transparent = image.info.get("transparency")
    if isinstance(transparent, int) and 0 <= transparent < len(table):
        table = table.copy()
        table[transparent] = 0
    return table


def _is_inverted(image: ImageFile.ImageFile) -> bool:
    """True for deep grey in which 0 is white. Pillow itself inverts only 8 bits and less."""
    return isinstance(image, TiffImageFile) and image.tag_v2.get(PHOTOMETRIC) == 0


@lru_cache(maxsize=2)
def _scaled(bits: int) -> np.ndarray:
    """uint8 (65536,): each value of so many bits scaled to 0..255 and rounded."""
    largest = 2**bits - 1
    values = np.minimum(np.arange(65536), largest)
    return ((values * 510 + largest) // (2 * largest)).astype(np.uint8)


def _in_one_line(error: Exception) -> str:
    """An error text that is the same for the same fault: without addresses of objects."""
    if isinstance(error, RefusedError):
        return str(error)
    message = " ".join(re.sub(r"<[^<>]* at 0x[0-9a-fA-F]+>", "", str(error)).split())
    if isinstance(error, MemoryError) or "out of memory" in message.lower():
        return "decoding it takes more memory than one image may have"
    if "truncated" in message.lower():
        return TRUNCATED
    return f"{type(error).__name__}: {message}"[:200].rstrip(": ")
