"""Pixels of 1, 12, 16 and 32 bits become 8 bits by a stated rule, or are refused."""

import io
import struct

import numpy as np
import pytest
from PIL import ExifTags, Image

from ganad.images.decode import Preprocessing
from ganad.images.inputs import decoded_batches

SIZE = 16
RGB = Preprocessing(image_size=SIZE)
GREY = Preprocessing(image_size=SIZE, channels=1)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_one_bit_is_black_and_white(kind, encode, colours, pixels):
    array = colours(channels=1) > 127
    data = encode(Image.fromarray(array), kind)
    np.testing.assert_array_equal(pixels(data, GREY), np.where(array, 255, 0))


def sixteen_bit() -> np.ndarray:
    special = [0, 1, 128, 129, 256, 257, 258, 32767, 32768, 65406, 65407, 65534, 65535]
    array = np.random.default_rng(1).integers(0, 65536, SIZE * SIZE).astype(np.uint16)
    array[: len(special)] = special
    return array.reshape(SIZE, SIZE)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_divided_by_257_and_rounded(kind, encode, pixels):
    array = sixteen_bit()
    data = encode(Image.fromarray(array), kind)
    expected = np.rint(array / 257).astype(np.uint8)
    np.testing.assert_array_equal(pixels(data, GREY), expected)
    np.testing.assert_array_equal(pixels(data)[..., 1], expected)


def tiff(strip: np.ndarray, bits: int, photometric: int = 1, sample_format: int = 1) -> bytes:
    """An uncompressed grey TIFF in the byte order of the strip, written by hand."""
    order = ">" if strip.dtype.byteorder == ">" else "<"
    tags = [
        (256, 4, SIZE),
        (257, 4, SIZE),
        (258, 3, bits),
        (259, 3, 1),
        (262, 3, photometric),
        (273, 4, 8),
        (277, 3, 1),
        (278, 4, SIZE),
        (279, 4, strip.nbytes),
        (339, 3, sample_format),
    ]
    entries = b"".join(
        struct.pack(f"{order}HHI{'I' if kind == 4 else 'Hxx'}", tag, kind, 1, value)
        for tag, kind, value in tags
    )
    head = (b"MM" if order == ">" else b"II") + struct.pack(f"{order}HI", 42, 8 + strip.nbytes)
    return head + strip.tobytes() + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)


def test_sixteen_bit_big_endian_tiff(pixels):
    array = sixteen_bit()
    data = tiff(array.astype(">u2"), 16)
    assert Image.open(io.BytesIO(data)).mode == "I;16B"
    np.testing.assert_array_equal(pixels(data, GREY), np.rint(array / 257))


def test_sixteen_bit_tiff_with_white_as_zero(pixels):
    array = sixteen_bit()
    np.testing.assert_array_equal(
        pixels(tiff(array, 16, photometric=0), GREY), np.rint((65535 - array.astype(int)) / 257)
    )


def test_twelve_bit_tiff_uses_the_whole_range(pixels):
    values = np.arange(SIZE * SIZE, dtype=np.uint16).reshape(SIZE, SIZE) * 16
    values[-1, -1] = 4095
    flat = values.ravel().astype(np.uint32)
    packed = np.empty(flat.size * 3 // 2, np.uint8)
    packed[0::3] = flat[0::2] >> 4
    packed[1::3] = (flat[0::2] & 15) << 4 | flat[1::2] >> 8
    packed[2::3] = flat[1::2] & 255
    data = tiff(packed, 12)
    np.testing.assert_array_equal(pixels(data, GREY), np.rint(values.astype(int) * 255 / 4095))


@pytest.mark.parametrize("values", [255, 65535, 2**31 - 1])
@pytest.mark.parametrize(
    ("kind", "code", "name"), [("<u4", 1, "32-bit"), ("<i4", 2, "signed"), ("<f4", 3, "float")]
)
def test_thirty_two_bits_are_an_error_whatever_the_values(kind, code, name, values, error):
    array = np.linspace(0, values, SIZE * SIZE).astype(kind)
    text = error(tiff(array, 32, sample_format=code))
    assert text == f"{name} pixels have no agreed black and white; convert it to 8 or 16 bit"


@pytest.mark.parametrize("kind", ["i1", "<i2", ">i2"])
def test_signed_pixels_are_an_error_also_where_none_is_negative(kind, error):
    array = np.arange(SIZE * SIZE).reshape(SIZE, SIZE).astype("u1").astype(kind) // 2
    bits = 8 * array.itemsize
    assert error(tiff(array, bits, sample_format=2)).startswith("signed pixels have no agreed")


def test_a_tiff_that_does_not_say_which_end_is_black_is_an_error(error, pixels):
    # Readers disagree: some take 0 for white, some for black.
    for array, bits in ((sixteen_bit(), 16), (sixteen_bit().astype("u1"), 8)):
        data = tiff(array, bits)
        assert pixels(data).shape == (SIZE, SIZE, 3)
        nameless = data.replace(struct.pack("<HHI", 262, 3, 1), struct.pack("<HHI", 263, 3, 1))
        assert error(nameless).startswith("the TIFF does not say whether 0 is black or white")


@pytest.mark.parametrize("mode", ["I", "F"])
def test_a_pil_image_of_32_bits_is_an_error_too(mode):
    ((found,), *_) = next(decoded_batches(Image.new(mode, (SIZE, SIZE), 200), GREY))
    assert "no agreed black and white" in found.error


def test_a_pil_image_of_a_mode_that_no_file_has_is_an_error_text():
    ((found,), *_) = next(decoded_batches(Image.new("HSV", (SIZE, SIZE)), GREY))
    assert found.error == "PIL images of mode HSV are not read; convert it to RGB"


def test_sixteen_bit_colour_keeps_the_high_byte(pixels, png):
    array = np.random.default_rng(2).integers(0, 65536, (SIZE, SIZE, 3)).astype(">u2")
    data = png(16, 2, array.reshape(SIZE, -1).view(np.uint8))
    np.testing.assert_array_equal(pixels(data), array >> 8)


def test_a_transparent_value_of_sixteen_bit_grey_is_black(pixels, png):
    array = sixteen_bit().astype(">u2")
    data = png(16, 0, array.view(np.uint8), transparent=struct.pack(">H", 32768))
    expected = np.rint(array / 257)
    expected[array == 32768] = 0
    np.testing.assert_array_equal(pixels(data, GREY), expected)


def test_sixteen_bit_grey_is_turned_too(encode, pixels):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    array = sixteen_bit()
    got = pixels(encode(Image.fromarray(array), exif=exif), GREY)
    np.testing.assert_array_equal(got, np.rot90(np.rint(array / 257), -1))
