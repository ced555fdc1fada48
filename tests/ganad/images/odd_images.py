"""A corpus of odd and bad images, each with what must come of it.

To look at it: python tests/ganad/images/odd_images.py FOLDER
"""

import io
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin

NOT_AN_IMAGE = "not an image"
TRUNCATED = "truncated"
EMPTY = "the file is empty"
BOMB = "decompression bomb"


class Odd(NamedTuple):
    """name: with its ending. error: how the error text begins; None if the image is decoded.
    size: (width, height) when decoded."""

    name: str
    data: bytes
    error: str | None = None
    size: tuple[int, int] = (40, 30)


def odd_images() -> Iterator[Odd]:
    """Every kind, each under a name of its own; the same bytes at every call."""
    for make in (jpegs, pngs, other_formats, tiffs, shapes, truncated, foreign, hostile, damaged):
        yield from make()


def pixels(channels: int = 3, width: int = 40, height: int = 30) -> np.ndarray:
    """uint8 (h, w, c) or (h, w): a slope with noise, so that it does not pack well."""
    rng = np.random.default_rng(7)
    slope = np.linspace(0, 200, width)[None, :] + np.linspace(0, 30, height)[:, None]
    noisy = slope[..., None] + rng.integers(0, 25, (height, width, channels))
    return noisy.astype(np.uint8).squeeze(2) if channels == 1 else noisy.astype(np.uint8)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


RGB, GREY, RGBA = (Image.fromarray(pixels(channels)) for channels in (3, 1, 4))


def jpegs() -> Iterator[Odd]:
    yield Odd("grey.jpg", encode(GREY, "JPEG"))
    yield Odd("progressive.jpg", encode(RGB, "JPEG", progressive=True))
    yield Odd("cmyk.jpg", encode(RGB.convert("CMYK"), "JPEG"))
    yield Odd("quality-1.jpg", encode(RGB, "JPEG", quality=1))
    yield Odd("full-colour.jpg", encode(RGB, "JPEG", subsampling=0, quality=100))
    yield Odd("restarts.jpg", encode(RGB, "JPEG", restart_marker_blocks=1))
    yield Odd("junk-behind-it.jpg", encode(RGB, "JPEG") + b"\0junk" * 100)
    yield Odd("comment.jpg", encode(RGB, "JPEG", comment=b"c" * 60_000))
    yield Odd("colour-profile.jpg", encode(RGB, "JPEG", icc_profile=b"no profile" * 1000))
    yield Odd("broken-exif.jpg", encode(RGB, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"))
    yield Odd("in-fact-a-jpeg.png", encode(RGB, "JPEG"))
    yield Odd("LOUD.JPG", encode(RGB, "JPEG"))
    for turn in (2, 3, 6, 8, 99):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = turn
        size = (30, 40) if turn in (6, 8) else (40, 30)
        yield Odd(f"turned-{turn}.jpg", encode(RGB, "JPEG", exif=exif), size=size)
    large = Image.fromarray(pixels(3, 900, 700))
    yield Odd("large.jpg", encode(large, "JPEG"), size=(900, 700))


def pngs() -> Iterator[Odd]:
    yield Odd("one-bit.png", encode(GREY.convert("1"), "PNG"))
    yield Odd("palette.png", encode(RGB.quantize(16), "PNG"))
    yield Odd("transparent-palette.png", encode(RGB.quantize(16), "PNG", transparency=3))
    yield Odd("alpha.png", encode(RGBA, "PNG"))
    yield Odd("grey-alpha.png", encode(RGBA.convert("LA"), "PNG"))
    yield Odd("transparent-grey.png", encode(GREY, "PNG", transparency=20))
    deep = (pixels(1).astype(np.uint16) * 257).astype(np.uint16)
    yield Odd("deep-grey.png", encode(Image.fromarray(deep), "PNG"))
    deep_rows = np.repeat(pixels(3).astype(">u2") * 257, 1, axis=0)
    yield Odd("deep-colour.png", png(40, 30, 16, 2, [row.tobytes() for row in deep_rows]))
    yield Odd("animated.png", encode(RGB, "PNG", save_all=True, append_images=[RGB.rotate(90)]))
    text = PngImagePlugin.PngInfo()
    text.add_itxt("Comment", "ä" * 1000, zip=True)
    yield Odd("text-in-it.png", encode(RGB, "PNG", pnginfo=text))
    yield Odd("in-fact-a-png.jpg", encode(RGB, "PNG"))


def other_formats() -> Iterator[Odd]:
    more = [RGB.rotate(90), RGB.rotate(180)]
    yield Odd("lossy.webp", encode(RGB, "WEBP"))
    yield Odd("lossless-alpha.webp", encode(RGBA, "WEBP", lossless=True))
    yield Odd("animated.webp", encode(RGB, "WEBP", save_all=True, append_images=more))
    yield Odd("still.gif", encode(RGB, "GIF"))
    yield Odd("animated.gif", encode(RGB, "GIF", save_all=True, append_images=more))
    yield Odd("transparent.gif", encode(RGB.quantize(8), "GIF", transparency=2))
    yield Odd("colour.bmp", encode(RGB, "BMP"))
    yield Odd("palette.bmp", encode(RGB.quantize(8), "BMP"))
    yield Odd("one-bit.bmp", encode(GREY.convert("1"), "BMP"))
    upside_down = bytearray(encode(RGB, "BMP"))
    upside_down[22:26] = struct.pack("<i", -30)
    yield Odd("from-the-top.bmp", bytes(upside_down))


def tiffs() -> Iterator[Odd]:
    for compression in ("raw", "tiff_lzw", "tiff_deflate", "packbits", "jpeg"):
        yield Odd(f"{compression}.tif", encode(RGB, "TIFF", compression=compression))
    yield Odd("fax.tif", encode(GREY.convert("1"), "TIFF", compression="group4"))
    yield Odd("cmyk.tif", encode(RGB.convert("CMYK"), "TIFF"))
    yield Odd("lab.tif", encode(Image.fromarray(pixels(3), "LAB"), "TIFF"))
    deep = pixels(1).astype(np.uint16) * 200
    yield Odd("deep.tif", encode(Image.fromarray(deep), "TIFF"))
    whole = Image.fromarray(pixels(1).astype(np.int32))
    yield Odd("whole-numbers.tif", encode(whole, "TIFF"), "signed pixels")
    pages = [RGB.rotate(90, expand=True)] * 3
    yield Odd("pages.tif", encode(RGB, "TIFF", save_all=True, append_images=pages))
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[274] = 6
    yield Odd("turned.tif", encode(RGB, "TIFF", tiffinfo=tags), size=(30, 40))
    yield Odd("wide.tif", encode(RGB, "TIFF", big_tiff=True))
    floats = Image.fromarray(pixels(1).astype(np.float32) / 255)
    yield Odd("floats.tif", encode(floats, "TIFF"), "float pixels")
    beyond = Image.fromarray(pixels(1).astype(np.int32) * 100_000)
    yield Odd("beyond.tif", encode(beyond, "TIFF"), "signed pixels")


def shapes() -> Iterator[Odd]:
    for width, height in ((1, 1), (1, 400), (3000, 1), (7, 9)):
        one = Image.fromarray(pixels(3, width, height))
        yield Odd(f"{width}-by-{height}.png", encode(one, "PNG"), size=(width, height))
        yield Odd(f"{width}-by-{height}.jpg", encode(one, "JPEG"), size=(width, height))
    for level in (0, 255):
        yield Odd(f"flat-{level}.png", encode(Image.new("L", (40, 30), level), "PNG"))


def truncated() -> Iterator[Odd]:
    for kind, ending in (("JPEG", "jpg"), ("PNG", "png"), ("BMP", "bmp"), ("GIF", "gif")):
        data = encode(RGB, kind)
        yield Odd(f"half.{ending}", data[: len(data) // 2], TRUNCATED)
    progressive = encode(RGB, "JPEG", progressive=True)
    yield Odd("half-progressive.jpg", progressive[: len(progressive) * 2 // 3], TRUNCATED)
    yield Odd("last-byte-gone.jpg", encode(RGB, "JPEG")[:-40], TRUNCATED)
    yield Odd("header-only.png", encode(RGB, "PNG")[:33], "")
    yield Odd("half.tif", encode(RGB, "TIFF")[:1000], "")
    yield Odd("half.webp", encode(RGB, "WEBP")[:200], "")


def foreign() -> Iterator[Odd]:
    yield Odd("empty.png", b"", EMPTY)
    yield Odd("empty.jpg", b"", EMPTY)
    yield Odd("one-byte.png", b"\x89", NOT_AN_IMAGE)
    yield Odd("zeros.jpg", bytes(5000), NOT_AN_IMAGE)
    yield Odd("noise.png", np.random.default_rng(1).bytes(5000), NOT_AN_IMAGE)
    yield Odd("not-found.jpg", b"<!doctype html><title>404</title>", NOT_AN_IMAGE)
    yield Odd("drawing.png", b'<svg xmlns="http://www.w3.org/2000/svg"/>', NOT_AN_IMAGE)
    yield Odd("paper.png", b"%PDF-1.7\n" + bytes(100), "")
    yield Odd("packed.jpg", zlib.compress(encode(RGB, "JPEG")), NOT_AN_IMAGE)
    yield Odd("zip.jpg", b"PK\x03\x04" + bytes(100), NOT_AN_IMAGE)
    yield Odd("film.jpg", b"\0\0\0\x18ftypmp42" + bytes(100), "")
    yield Odd("telephone.jpg", b"\0\0\0\x18ftypheic" + bytes(100), "")
    yield Odd("portable.png", encode(RGB, "PPM"), "PPM images are not read")
    yield Odd("wavelets.jpg", encode(RGB, "JPEG2000"), "JPEG2000 images are not read")
    yield Odd("icon.png", encode(RGB, "ICO"), "ICO images are not read")


def hostile() -> Iterator[Odd]:
    yield Odd("bomb.png", png(60_000, 60_000, 8, 0, [bytes(60_000)]), BOMB)
    bitmap = bytearray(encode(RGB, "BMP"))
    bitmap[18:26] = struct.pack("<ii", 50_000, 50_000)
    yield Odd("bomb.bmp", bytes(bitmap), BOMB)
    picture = bytearray(encode(RGB, "GIF"))
    picture[6:10] = struct.pack("<HH", 65_535, 65_535)
    yield Odd("bomb.gif", bytes(picture), BOMB)
    photo = bytearray(encode(RGB, "JPEG"))
    place = photo.index(b"\xff\xc0") + 5
    photo[place : place + 4] = struct.pack(">HH", 65_500, 65_500)
    yield Odd("bomb.jpg", bytes(photo), BOMB)
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(80_000_000), 9))
    plain = encode(RGB, "PNG")
    yield Odd("text-bomb.png", plain[:33] + text + plain[33:], "")
    yield Odd("no-width.png", png(0, 30, 8, 0, [b""]), "")


def damaged() -> Iterator[Odd]:
    plain = bytearray(encode(RGB, "PNG"))
    start = plain.index(b"IDAT")
    plain[start + 200 : start + 260] = bytes(60)
    yield Odd("broken-data.png", bytes(plain), "")
    plain = bytearray(encode(RGB, "PNG"))
    plain[29:33] = b"\0\0\0\0"  # the check of the header
    yield Odd("broken-check.png", bytes(plain), "")
    photo = encode(RGB, "JPEG")
    tables = photo.index(b"\xff\xdb")
    yield Odd("no-tables.jpg", photo[:tables] + photo[photo.index(b"\xff\xc0") :], "")
    yield Odd("no-header.jpg", b"\xff\xd8\xff\xd9", "")
    tif = encode(RGB, "TIFF")
    yield Odd("broken-tags.tif", tif[:8] + b"\xff" * 200, "")


def chunk(name: bytes, body: bytes) -> bytes:
    check = zlib.crc32(name + body)
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", check)


def png(width: int, height: int, bits: int, colour: int, rows: list[bytes]) -> bytes:
    """A PNG written by hand, for what Pillow does not write."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b"")


def write_corpus(folder: Path) -> dict[str, Odd]:
    """Write all of them into the folder; returns them by name."""
    folder.mkdir(parents=True, exist_ok=True)
    corpus = {odd.name: odd for odd in odd_images()}
    for odd in corpus.values():
        (folder / odd.name).write_bytes(odd.data)
    return corpus


if __name__ == "__main__":
    for odd in write_corpus(Path(sys.argv[1])).values():
        print(f"{odd.name:28} {'decoded' if odd.error is None else odd.error or 'some error'}")
