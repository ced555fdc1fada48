"""Images encoded and decoded in the way of these tests: 16 x 16 pixels unless said otherwise; empty
ones, and places for a manifest of them."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ganad.images.decode import Preprocessing, decode

SIZE = 16
RGB = Preprocessing(image_size=SIZE)


@pytest.fixture(scope="session")
def encode():
    def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    return encode


@pytest.fixture(scope="session")
def colours():
    def colours(
        seed: int = 0, height: int = SIZE, width: int = SIZE, channels: int = 3
    ) -> np.ndarray:
        shape = (height, width, channels) if channels > 1 else (height, width)
        return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)

    return colours


@pytest.fixture(scope="session")
def pixels():
    def pixels(data: bytes, preprocessing: Preprocessing = RGB) -> np.ndarray:
        """Decoded pixels as (h, w, c), or (h, w) for grey."""
        decoded = decode(data, preprocessing)
        assert decoded.error is None, decoded.error
        assert decoded.image is not None
        assert decoded.image.dtype == np.uint8
        assert decoded.image.shape == (preprocessing.channels, SIZE, SIZE)
        image = decoded.image.transpose(1, 2, 0)
        return image[..., 0] if preprocessing.channels == 1 else image

    return pixels


@pytest.fixture(scope="session")
def error():
    def error(data: bytes, preprocessing: Preprocessing = RGB) -> str:
        decoded = decode(data, preprocessing)
        assert decoded.image is decoded.width is decoded.height is None
        assert decoded.error
        assert "\n" not in decoded.error
        assert "0x" not in decoded.error
        return decoded.error

    return error


@pytest.fixture(scope="session")
def png():
    def png(bit_depth: int, colour: int, rows: np.ndarray, transparent: bytes = b"") -> bytes:
        """A PNG written by hand, for what Pillow does not write; rows: uint8 (h, bytes per row)."""

        def chunk(name: bytes, body: bytes) -> bytes:
            check = zlib.crc32(name + body)
            return struct.pack(">I", len(body)) + name + body + struct.pack(">I", check)

        head = struct.pack(">IIBBBBB", SIZE, len(rows), bit_depth, colour, 0, 0, 0)
        body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
        extra = chunk(b"tRNS", transparent) if transparent else b""
        chunks = chunk(b"IHDR", head) + extra + chunk(b"IDAT", body) + chunk(b"IEND", b"")
        return b"\x89PNG\r\n\x1a\n" + chunks

    return png


@pytest.fixture
def photos(tmp_path):
    """A function that makes empty images, and returns their folder."""

    def make(*names, folder="photos"):
        for name in names:
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return str(tmp_path / folder)

    return make


@pytest.fixture(params=["local", "s3"])
def out(request, tmp_path):
    """Where to write a manifest."""
    if request.param == "local":
        return str(tmp_path / "deep" / "manifest")
    s3 = request.getfixturevalue("s3")
    (s3.root / "manifests").mkdir(exist_ok=True)
    return s3.url(f"manifests/{tmp_path.name}/manifest")
