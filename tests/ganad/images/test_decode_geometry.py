"""Orientation, resizing and the sizes that decode reports."""

import io

import numpy as np
import pytest
from PIL import ExifTags, Image

from ganad.images.decode import Preprocessing, decode

SIZE = 16
RGB = Preprocessing(image_size=SIZE)
GREY = Preprocessing(image_size=SIZE, channels=1)


TURNED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind, orientation, encode, colours):
    array = colours(height=24, width=40)
    upright = TURNED[orientation](array)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    turned = decode(encode(Image.fromarray(array), kind, exif=exif, **options), RGB)
    plain = decode(encode(Image.fromarray(np.ascontiguousarray(upright))), RGB)
    assert (turned.width, turned.height) == (plain.width, plain.height) == upright.shape[1::-1]
    np.testing.assert_array_equal(turned.image, plain.image)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_a_jpeg_that_is_shrunk_while_decoded(orientation, encode):
    array = np.zeros((200, 300, 3), np.uint8)
    array[:100, :150] = (250, 0, 0)
    array[100:, 150:] = (0, 0, 250)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    decoded = decode(encode(Image.fromarray(array), "JPEG", exif=exif, quality=95), RGB)
    upright = TURNED[orientation](array)
    assert (decoded.width, decoded.height) == upright.shape[1::-1]
    corners = [(1, 1), (1, -2), (-2, 1), (-2, -2)]
    for row, column in corners:
        wanted = upright[row * 10, column * 10].astype(int)
        assert np.abs(decoded.image[:, row, column] - wanted).max() < 12


@pytest.mark.filterwarnings("ignore")
def test_damaged_exif_does_not_cost_the_image(encode, colours, pixels):
    array = colours()
    whole = encode(Image.fromarray(array), "JPEG")
    for exif in (b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0nonsense", b"Exif\0\0"):
        damaged = encode(Image.fromarray(array), "JPEG", exif=exif)
        np.testing.assert_array_equal(pixels(damaged), pixels(whole))


def test_resizing_is_antialiased_and_ignores_the_aspect(encode):
    # Stripes finer than the target: without antialiasing they would become other stripes.
    array = np.zeros((64, 128), np.uint8)
    array[:, ::2] = 255
    decoded = decode(encode(Image.fromarray(array)), GREY)
    assert (decoded.width, decoded.height) == (128, 64)
    assert np.abs(decoded.image[0].astype(int) - 128).max() <= 8
    expected = Image.fromarray(array).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(decoded.image[0], np.asarray(expected))


def test_small_images_are_enlarged(encode, pixels):
    assert pixels(encode(Image.new("RGB", (1, 1), (9, 8, 7)))).reshape(-1, 3).tolist() == [
        [9, 8, 7]
    ] * (SIZE * SIZE)


def test_shrinking_a_jpeg_while_decoding_changes_little(encode, colours, pixels):
    smooth = Image.fromarray(colours(height=12, width=12)).resize(
        (512, 384), Image.Resampling.BICUBIC
    )
    data = encode(smooth, "JPEG", quality=95)
    drafted = pixels(data).astype(int)
    whole = Image.open(io.BytesIO(data)).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    assert np.abs(drafted - np.asarray(whole)).mean() < 2


@pytest.mark.parametrize(("side", "drafted"), [(63, 63), (64, 32), (127, 64), (128, 32), (512, 64)])
def test_the_last_resize_still_halves_at_least(side, drafted, monkeypatch, encode, pixels):
    sizes = []
    resize = Image.Image.resize
    monkeypatch.setattr(
        Image.Image, "resize", lambda self, *args: sizes.append(self.size) or resize(self, *args)
    )
    pixels(encode(Image.new("RGB", (side, side)), "JPEG"))
    assert sizes == [(drafted, drafted)]
    assert drafted >= 2 * SIZE


def test_sizes_are_those_of_the_file(encode):
    decoded = decode(encode(Image.new("RGB", (300, 200)), "JPEG"), RGB)
    assert (decoded.width, decoded.height, decoded.error) == (300, 200, None)
