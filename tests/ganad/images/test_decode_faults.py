"""Bad files become an error text of one line, and nothing ever raises."""

import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, TiffImagePlugin

from ganad.images.decode import Preprocessing, decode

SIZE = 16
RGB = Preprocessing(image_size=SIZE)
GREY = Preprocessing(image_size=SIZE, channels=1)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF"])
def test_a_truncated_file_is_an_error(kind, encode, colours, error):
    data = encode(Image.fromarray(colours(height=64, width=64)), kind)
    for share in (0.3, 0.6, 0.9):
        error(data[: int(len(data) * share)])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF"])
def test_truncation_is_called_so(kind, encode, colours, error):
    data = encode(Image.fromarray(colours(height=64, width=64)), kind)
    assert error(data[: len(data) // 2]) == "truncated: the file ends before its image does"


@pytest.mark.parametrize("level", [0, 6])
def test_a_png_with_any_changed_byte_of_its_pixels_is_an_error(level, encode, colours, error):
    # Pillow alone decodes some of them to other pixels: 2 % of the bits of a palette image.
    data = encode(Image.fromarray(colours(height=24, width=24)).quantize(16), compress_level=level)
    start = data.index(b"IDAT")
    for place in range(start + 4, data.index(b"IEND") - 4):
        changed = bytearray(data)
        changed[place] ^= 4
        assert error(bytes(changed))


def test_an_empty_file(error):
    assert error(b"") == "the file is empty"


@pytest.mark.parametrize("data", [b"x", b"<html>not found</html>", bytes(100), b"\xff" * 64])
def test_what_is_no_image(data, error):
    assert error(data).startswith("not an image")


@pytest.mark.parametrize(
    ("kind", "name"), [("PPM", "PPM"), ("ICO", "ICO"), ("JPEG2000", "JPEG2000")]
)
def test_other_formats_are_named(kind, name, encode, error):
    text = error(encode(Image.new("RGB", (SIZE, SIZE)), kind))
    assert text == f"{name} images are not read; convert it to PNG, TIFF or JPEG"


@pytest.fixture
def bomb(png) -> bytes:
    """A PNG whose header promises 60,000 x 60,000 pixels, and has none."""
    data = png(8, 0, np.zeros((1, SIZE), np.uint8))
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    check = zlib.crc32(b"IHDR" + head)
    return data[:16] + head + struct.pack(">I", check) + data[33:]


def test_a_bomb_is_refused_by_its_header(error, bomb):
    expected = "decompression bomb: 60000 x 60000 pixels are more than max_pixels = 200000000"
    assert error(bomb) == expected


def test_max_pixels_is_exact(encode, error):
    data = encode(Image.new("L", (20, 10)))
    assert decode(data, Preprocessing(image_size=8, max_pixels=200)).error is None
    assert "more than max_pixels = 199" in error(data, Preprocessing(image_size=8, max_pixels=199))


def test_pillows_own_limit_does_not_decide(monkeypatch, encode):
    data = encode(Image.new("L", (100, 100)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert decode(data, RGB).error is None
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_a_bomb_inside_a_format_that_pillow_guards_itself(monkeypatch, encode, error):
    data = encode(Image.new("RGB", (100, 100)), "WEBP")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert error(data).startswith("DecompressionBombError")


def test_a_damaged_tiff_tag_is_an_error_text(encode, colours, pixels, error):
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[TiffImagePlugin.IMAGEDESCRIPTION] = "tile 7"
    data = encode(Image.fromarray(colours()), "TIFF", tiffinfo=info)
    np.testing.assert_array_equal(pixels(data), colours())
    assert error(data[:8] + b"\xff" * 200)


@pytest.mark.filterwarnings("ignore")
def test_no_damage_ever_raises(encode, colours):
    rng = np.random.default_rng(3)
    image = Image.fromarray(colours(height=24, width=24))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    originals = [
        *(encode(image, kind) for kind in ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF")),
        *(encode(image, "TIFF", compression=c) for c in ("tiff_lzw", "jpeg", "tiff_deflate")),
        encode(image, "JPEG", exif=exif, progressive=True),
        encode(Image.fromarray(np.arange(576, dtype=np.uint16).reshape(24, 24) * 100)),
        encode(image.quantize(8), transparency=1),
        encode(image.convert("RGBA"), "WEBP", lossless=True),
        encode(image.convert("CMYK"), "JPEG"),
    ]
    small = Preprocessing(image_size=8, max_pixels=100_000)
    num_decoded = num_refused = 0
    for original in originals:
        for _ in range(60):
            data = bytearray(original)
            for place in rng.integers(0, len(data), int(rng.integers(1, 8))):
                data[place] = rng.integers(0, 256)
            if rng.random() < 0.3:
                data = data[: int(rng.integers(0, len(data)))]
            decoded = decode(bytes(data), small)
            assert (decoded.image is None) == (decoded.error is not None)
            if decoded.image is None:
                num_refused += 1
                assert "\n" not in decoded.error
                assert len(decoded.error) <= 200
            else:
                num_decoded += 1
                assert decoded.image.shape == (3, 8, 8)
                assert decoded.width > 0
    assert num_decoded > 50
    assert num_refused > 50
