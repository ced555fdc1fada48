"""The header of an image file: its format, its size, what its pixels mean. Nothing is decoded."""

from __future__ import annotations

import io
import math
import struct
import warnings
import zlib
from collections.abc import Callable
from functools import lru_cache

from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

# Opened by their own classes: Image.open knows forty formats, some of which start other programs,
# and has one limit of pixels for the whole process.
_FORMATS: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "BMP": BmpImageFile,
    "TIFF": TiffImageFile,
    "WEBP": WebPImageFile,
    "GIF": GifImageFile,
}
# Pillow's warnings change no result here, also where warnings are errors or are printed.
warnings.filterwarnings("ignore", module=r"PIL\.")

BITS, COMPRESSION, PHOTOMETRIC = 258, 259, 262
_WIDTH, _LENGTH, _TILE_WIDTH, _TILE_LENGTH, _SAMPLE_FORMAT = 256, 257, 322, 323, 339
_JPEG_IN_TIFF = (6, 7)
_READ_BITS = {1, 2, 4, 8, 12, 16}
TRUNCATED = "truncated: the file ends before its image does"
_NOT_UNSIGNED = {2: "signed", 3: "float", 4: "undefined", 5: "complex", 6: "complex"}
"""Values of TIFF's SampleFormat other than 1, unsigned integers."""


class RefusedError(Exception):
    """An image that the policy refuses; its message is the whole error text."""


def open_image(data: bytes, max_pixels: int) -> ImageFile.ImageFile:
    """Read the header of an image file.

    Raises RefusedError for a format that is not read, for pixels without an agreed black and
    white, and for more than max_pixels; and whatever Pillow raises for damaged files.
    """
    if not data:
        raise RefusedError("the file is empty")
    for name, opener in _FORMATS.items():
        if _accepts(name, data[:16]):
            if name == "TIFF":
                _check_tiff(data, max_pixels)
            if name == "PNG":
                _check_png(data)
            image = opener(io.BytesIO(data))
            _check_size(*image.size, max_pixels)
            return image
    raise RefusedError(_foreign(data[:16]))


def _check_size(width: int, height: int, max_pixels: int, kind: str = "pixels") -> None:
    if width * height > max_pixels:
        raise RefusedError(
            f"decompression bomb: {width} x {height} {kind} are more than max_pixels = {max_pixels}"
        )


def _check_tiff(data: bytes, max_pixels: int) -> None:
    """Refuse what the tags of the first page say cannot be read safely.

    Pillow decides by combinations of tags that it knows, takes signed 8-bit values for unsigned
    ones, and decodes whole tiles, however far they reach beyond the image.
    """
    tags = ImageFileDirectory_v2(data[:16] if data[2:3] == b"+" else data[:8])
    file = io.BytesIO(data)
    file.seek(tags.next)
    tags.load(file)
    for code in _values(tags, _SAMPLE_FORMAT, 1):
        if code != 1:
            raise _no_black_and_white(_NOT_UNSIGNED.get(code, "undefined"))
    bits = set(_values(tags, BITS, 1))
    if not bits <= _READ_BITS:
        raise _no_black_and_white(f"{max(bits - _READ_BITS)}-bit")
    if PHOTOMETRIC not in tags and tags.get(COMPRESSION) not in _JPEG_IN_TIFF:
        raise RefusedError("the TIFF does not say whether 0 is black or white; convert it to PNG")
    if _TILE_WIDTH in tags and _TILE_LENGTH in tags:
        width, height = (
            math.ceil(tags[side] / tags[tile]) * tags[tile]
            for side, tile in ((_WIDTH, _TILE_WIDTH), (_LENGTH, _TILE_LENGTH))
        )
        _check_size(width, height, max_pixels, "pixels of whole tiles")


def _check_png(data: bytes) -> None:
    """Refuse a PNG whose pixels do not have the checksums that are written beside them.

    Pillow does not compare them, and decodes some changed files to other pixels without a word.
    """
    view, place = memoryview(data), 8
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 8 + length
        if kind == b"IEND":
            return
        if kind == b"IDAT":
            if end + 4 > len(data):
                raise RefusedError(TRUNCATED)
            if zlib.crc32(view[place + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
                raise RefusedError("damaged: the checksum of the PNG's pixels is another")
        place = end + 4


def _values(tags: ImageFileDirectory_v2, tag: int, default: int) -> tuple[int, ...]:
    value = tags.get(tag, default)
    return value if isinstance(value, tuple) else (value,)


def _no_black_and_white(kind: str) -> RefusedError:
    return RefusedError(f"{kind} pixels have no agreed black and white; convert it to 8 or 16 bit")


def _accepts(name: str, start: bytes) -> bool:
    accept = Image.OPEN[name][1]
    try:
        return accept is not None and accept(start) is True
    except Exception:
        return False  # too short for this format to look at


@lru_cache(maxsize=256)
def _foreign(start: bytes) -> str:
    """The error text for a file that is none of the six formats."""
    Image.init()  # registers all that Pillow knows, about fifty modules: only on this path
    known = [name for name in Image.OPEN if name not in _FORMATS and _accepts(name, start)]
    if known:
        return f"{known[0]} images are not read; convert it to PNG, TIFF or JPEG"
    return "not an image: neither JPEG, PNG, BMP, TIFF, WebP nor GIF"
