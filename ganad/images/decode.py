"""Bytes of one image file -> uint8 pixels, or an error text. The one way in, for training and
scoring alike.

What is done to every kind of image:

* Formats: JPEG, PNG, BMP, TIFF, WebP, GIF, told by their first bytes. Others are named and refused.
* Orientation of EXIF is applied. Colour profiles are not.
* Animations and pages: the first.
* Transparency (alpha, a transparent colour or palette entry) is laid over black.
* Palettes, CMYK, YCbCr and LAB become RGB; 1-bit becomes 0 and 255.
* 16-bit grey is divided by 257 and rounded, 12-bit scaled alike; of 16-bit colour Pillow keeps the
  high byte. Float pixels, and integers beyond 0..65535, have no agreed black and white: refused.
* channels = 1 is luma of ITU-R 601 (Pillow's "L"); channels = 3 of a grey image repeats it.
* Resized to a square by antialiased bilinear interpolation, the aspect ratio not kept. A JPEG at
  least four times too large is first shrunk while its DCT is decoded, to no less than twice the
  target.
* More than max_pixels, told by the header before a pixel is decoded: refused.
* Files that are empty or end before their last pixel: refused, though a part would decode.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import ExifTags, Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile
from pydantic import BaseModel, ConfigDict, Field

# Opened by their own classes: Image.open has a limit of pixels of its own, a global one.
_FORMATS: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "BMP": BmpImageFile,
    "TIFF": TiffImageFile,
    "WEBP": WebPImageFile,
    "GIF": GifImageFile,
}
# What Pillow warns of decides nothing here, wherever warnings are made errors or printed.
warnings.filterwarnings("ignore", module=r"PIL\.")

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TIFF_BITS, _TIFF_PHOTOMETRIC = 258, 262


class Preprocessing(BaseModel):
    """How pixels are made ready for a detector; saved with a model and the same ever after."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    image_size: int = Field(ge=1)
    """Side in pixels of the square that images are resized to."""
    channels: Literal[1, 3] = 3
    """1 = grey, 3 = RGB."""
    max_pixels: int = Field(default=200_000_000, ge=1)
    """Images with more are refused as decompression bombs."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """One image ready for a detector, or the reason why not.

    image: uint8 (channels, image_size, image_size). width, height: of the whole upright image.
    error: one line. Either error is None or the three others are.
    """

    image: np.ndarray | None
    width: int | None
    height: int | None
    error: str | None


def failed(error: str) -> Decoded:
    """An image that cannot be had, and why."""
    return Decoded(None, None, None, error)


def decode(data: bytes, preprocessing: Preprocessing) -> Decoded:
    """The pixels of one image file; never raises (see the module's docstring for the policy)."""
    try:
        return _decode(data, preprocessing)
    except Exception as error:
        return failed(_in_one_line(error))


class _RefusedError(Exception):
    """An image that the policy refuses; its message is the whole error text."""


def _decode(data: bytes, preprocessing: Preprocessing) -> Decoded:
    image = _open(data)
    width, height = image.size
    if width * height > preprocessing.max_pixels:
        raise _RefusedError(
            f"decompression bomb: {width} x {height} pixels are more than "
            f"max_pixels = {preprocessing.max_pixels}"
        )
    size = preprocessing.image_size
    if isinstance(image, JpegImageFile):
        image.draft(None, (2 * size, 2 * size))
    image.load()  # turns a TIFF upright by itself, and forgets its orientation
    orientation = _orientation(image)
    upright = _plain(image)
    if orientation in _TURNS:
        upright = upright.transpose(_TURNS[orientation])
        if orientation >= 5:
            width, height = height, width
    if preprocessing.channels == 1:
        upright = upright.convert("L")
    # A grey image is resized as grey and repeated afterwards: the same pixels for a third.
    pixels = np.asarray(upright.resize((size, size), Image.Resampling.BILINEAR))
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[None], preprocessing.channels, axis=0)
    else:
        pixels = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    return Decoded(pixels, width, height, None)


def _open(data: bytes) -> ImageFile.ImageFile:
    """Read the header only."""
    if not data:
        raise _RefusedError("the file is empty")
    for name, opener in _FORMATS.items():
        if _accepts(name, data[:16]):
            return opener(io.BytesIO(data))
    raise _RefusedError(_foreign(data[:16]))


def _accepts(name: str, start: bytes) -> bool:
    accept = Image.OPEN[name][1]
    try:
        return accept is not None and accept(start) is True
    except Exception:
        return False  # too short for this format to look at


@lru_cache(maxsize=256)
def _foreign(start: bytes) -> str:
    """What a file that is none of ours may be."""
    Image.init()  # registers all that Pillow knows, about fifty modules: only on this path
    known = [name for name in Image.OPEN if name not in _FORMATS and _accepts(name, start)]
    if known:
        return f"{known[0]} images are not read; convert it to PNG, TIFF or JPEG"
    return "not an image: neither JPEG, PNG, BMP, TIFF, WebP nor GIF"


def _orientation(image: ImageFile.ImageFile) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return 1  # damaged EXIF says nothing about the pixels


def _plain(image: ImageFile.ImageFile) -> Image.Image:
    """Any loaded image as "L" or "RGB"."""
    mode = image.mode
    if mode == "F":
        raise _RefusedError("float pixels have no black and white; convert it to 8 or 16 bit")
    if mode.startswith("I"):
        return _deep_grey(image)
    if image.has_transparency_data:
        return _over_black(image)
    if mode in ("L", "RGB"):
        return image
    return image.convert("L" if mode == "1" else "RGB")


def _over_black(image: Image.Image) -> Image.Image:
    if image.mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    image = image.convert("RGBA")
    flat = Image.new("RGB", image.size)
    flat.paste(image, mask=image.getchannel("A"))
    return flat


def _deep_grey(image: ImageFile.ImageFile) -> Image.Image:
    """Grey of more than 8 bits as "L", by a table of all 65,536 values."""
    values = np.asarray(image)
    if image.mode == "I" and (values.min() < 0 or values.max() > 65535):
        raise _RefusedError("integer pixels beyond 0..65535; convert it to 8 or 16 bit")
    bits, white_is_zero = 16, False
    if isinstance(image, TiffImageFile):
        bits = 12 if image.tag_v2.get(_TIFF_BITS) in (12, (12,)) else 16
        white_is_zero = image.tag_v2.get(_TIFF_PHOTOMETRIC) == 0
    table = _table(bits)
    if white_is_zero:
        table = table[::-1]
    transparent = image.info.get("transparency")
    if isinstance(transparent, int) and 0 <= transparent < len(table):
        table = table.copy()
        table[transparent] = 0
    return Image.fromarray(table[values])


@lru_cache(maxsize=2)
def _table(bits: int) -> np.ndarray:
    """uint8 (65536,): each value of so many bits scaled to 0..255 and rounded."""
    largest = 2**bits - 1
    values = np.minimum(np.arange(65536), largest)
    return ((values * 510 + largest) // (2 * largest)).astype(np.uint8)


def _in_one_line(error: Exception) -> str:
    """An error text that is the same for the same fault: without addresses of objects."""
    if isinstance(error, _RefusedError):
        return str(error)
    message = " ".join(re.sub(r"<[^<>]* at 0x[0-9a-fA-F]+>", "", str(error)).split())
    if "truncated" in message.lower():
        return "truncated: the file ends before its image does"
    return f"{type(error).__name__}: {message}"[:200].rstrip(": ")
