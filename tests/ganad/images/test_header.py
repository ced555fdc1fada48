"""What is refused from the header alone, before a pixel is decoded."""

import struct
import zlib

import numpy as np
import pytest

from ganad.images.decode import Preprocessing, decode
from ganad.images.header import RefusedError, open_image


def tiled(width: int, height: int, tile: tuple[int, int]) -> bytes:
    """A grey TIFF of one deflated tile, of the given width and length."""
    body = zlib.compress(np.arange(tile[0] * tile[1], dtype=np.uint8).tobytes(), 9)
    tags = [
        (256, width),
        (257, height),
        (258, 8),
        (259, 8),
        (262, 1),
        (277, 1),
        (322, tile[0]),
        (323, tile[1]),
        (324, 8),
        (325, len(body)),
    ]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    body += bytes(len(body) % 2)
    end = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II" + struct.pack("<HI", 42, 8 + len(body)) + body + end


def test_the_limit_counts_the_whole_tiles_that_are_decoded() -> None:
    data = tiled(10, 10, (64, 48))
    assert decode(data, Preprocessing(image_size=8, max_pixels=64 * 48)).error is None
    with pytest.raises(RefusedError) as caught:
        open_image(data, 64 * 48 - 1)
    assert str(caught.value) == (
        "decompression bomb: 64 x 48 pixels of whole tiles are more than max_pixels = 3071"
    )


@pytest.mark.parametrize("tile", [(0, 16), (2**32 - 16, 2**32 - 16)])
def test_absurd_tiles_are_an_error(tile: tuple[int, int]) -> None:
    data = bytearray(tiled(10, 10, (16, 16)))
    for tag, side in zip((322, 323), tile, strict=True):
        place = data.index(struct.pack("<HHI", tag, 4, 1)) + 8
        data[place : place + 4] = struct.pack("<I", side)
    assert decode(bytes(data), Preprocessing(image_size=8)).error


def test_a_narrow_and_long_image_is_not_widened_before_it_is_shortened() -> None:
    rows = b"".join(b"\0" + bytes([row % 200]) for row in range(50_000))
    head = struct.pack(">IIBBBBB", 1, 50_000, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
    wide, narrow = (
        decode(data, Preprocessing(image_size=64, max_pixels=limit))
        for limit in (64 * 50_000, 50_000)
    )
    assert wide.image is not None
    assert narrow.image is not None
    assert np.abs(wide.image.astype(int) - narrow.image).max() <= 1
