"""What decode does to every format, colour space and frame, to the exact pixel."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms
from pydantic import ValidationError

from ganad.images.decode import Preprocessing, decode

SIZE = 16
RGB = Preprocessing(image_size=SIZE)
GREY = Preprocessing(image_size=SIZE, channels=1)


LOSSLESS = [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})]


@pytest.mark.parametrize(
    ("kind", "options"), LOSSLESS, ids=lambda x: x if isinstance(x, str) else ""
)
def test_lossless_colour_is_exact(kind, options, encode, colours, pixels):
    array = colours()
    data = encode(Image.fromarray(array), kind, **options)
    np.testing.assert_array_equal(pixels(data), array)
    luma = np.asarray(Image.fromarray(array).convert("L"))
    np.testing.assert_array_equal(pixels(data, GREY), luma)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF"])
def test_lossless_grey_is_exact_and_repeated(kind, encode, colours, pixels):
    array = colours(channels=1)
    data = encode(Image.fromarray(array), kind)
    np.testing.assert_array_equal(pixels(data, GREY), array)
    np.testing.assert_array_equal(pixels(data), np.repeat(array[..., None], 3, axis=2))


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_is_what_pillow_decodes(mode, encode, colours, pixels):
    array = colours(channels=3 if mode == "RGB" else 1)
    data = encode(Image.fromarray(array), "JPEG", quality=90)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(pixels(data), expected)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_alpha_is_laid_over_black(kind, encode, colours, pixels):
    array = colours(channels=4)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    alpha = array[..., 3:].astype(float) / 255
    expected = array[..., :3] * alpha
    got = pixels(encode(Image.fromarray(array), kind, **options))
    assert np.abs(got - expected).max() <= 1
    np.testing.assert_array_equal(got[array[..., 3] == 0], 0)
    opaque = array[..., 3] == 255
    np.testing.assert_array_equal(got[opaque], array[opaque][:, :3])


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_with_alpha(kind, encode, pixels):
    image = Image.new("LA", (SIZE, SIZE), (200, 255))
    image.putpixel((3, 5), (200, 0))
    expected = np.full((SIZE, SIZE), 200)
    expected[5, 3] = 0
    np.testing.assert_array_equal(pixels(encode(image, kind), GREY), expected)


def test_what_is_transparent_is_black_whatever_its_colour(encode, pixels):
    one, other = (Image.new("RGBA", (SIZE, SIZE), (value, 9, 9, 0)) for value in (0, 255))
    assert not pixels(encode(one)).any()
    assert not pixels(encode(other)).any()


@pytest.mark.parametrize("mode", ["L", "RGB", "1"])
def test_a_transparent_colour_is_black(mode, encode, pixels):
    image = Image.new(mode, (SIZE, SIZE), {"L": 77, "RGB": (7, 8, 9), "1": 1}[mode])
    image.putpixel((0, 0), {"L": 5, "RGB": (1, 2, 3), "1": 0}[mode])
    value = {"L": 77, "RGB": (7, 8, 9), "1": 255}[mode]
    key = 1 if mode == "1" else value
    got = pixels(encode(image, transparency=key))
    assert not got[1:].any()


@pytest.mark.parametrize("kind", ["PNG", "GIF", "TIFF", "BMP"])
def test_palettes_are_expanded(kind, encode, colours, pixels):
    image = Image.fromarray(colours()).quantize(16)
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(pixels(encode(image, kind)), expected)


@pytest.mark.parametrize("transparency", [3, bytes([255, 255, 255, 0])])
def test_palettes_with_transparency(transparency, encode, colours, pixels):
    image = Image.fromarray(colours()).quantize(16)
    expected = np.asarray(image.convert("RGB")).copy()
    expected[np.asarray(image) == 3] = 0
    np.testing.assert_array_equal(pixels(encode(image, transparency=transparency)), expected)
    if isinstance(transparency, int):
        got = pixels(encode(image, "GIF", transparency=transparency))
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(kind, encode, colours, pixels):
    inks = [Image.fromarray(colours(seed, channels=1)) for seed in range(4)]
    image = Image.merge("CMYK", inks)
    data = encode(image, kind)
    opened = Image.open(io.BytesIO(data))
    assert opened.mode == "CMYK"
    np.testing.assert_array_equal(pixels(data), np.asarray(opened.convert("RGB")))


def test_cmyk_ink_is_dark(encode, pixels):
    assert pixels(encode(Image.new("CMYK", (SIZE, SIZE), (0, 0, 0, 255)), "TIFF")).max() == 0
    assert pixels(encode(Image.new("CMYK", (SIZE, SIZE), (0, 0, 0, 0)), "TIFF")).min() == 255


def test_ycbcr(encode, colours, pixels):
    image = Image.fromarray(colours()).convert("YCbCr")
    data = encode(image, "TIFF")
    assert Image.open(io.BytesIO(data)).mode == "YCbCr"
    np.testing.assert_array_equal(pixels(data), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("colour", [(255, 0, 0), (10, 200, 60), (128, 128, 128), (0, 0, 0)])
def test_lab_comes_back_as_the_colour_it_was(colour, encode, pixels):
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    transform = ImageCms.buildTransform(*profiles, "RGB", "LAB")
    lab = transform.apply(Image.new("RGB", (SIZE, SIZE), colour))
    assert (
        np.abs(pixels(encode(lab, "TIFF")).astype(int) - colour).max() <= 8
    )  # 8 bits of LAB are coarse


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_of_an_animation(kind, encode, pixels):
    frames = [Image.new("RGB", (SIZE, SIZE), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    np.testing.assert_array_equal(pixels(data), np.asarray(frames[0]))


def test_a_phones_two_pictures_in_one_jpeg(encode, pixels):
    frames = [Image.new("RGB", (SIZE, SIZE), colour) for colour in ("red", "blue")]
    data = encode(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert pixels(data)[..., 0].min() > 240


def test_colour_profiles_are_left_alone(encode, colours, pixels):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    array = colours()
    np.testing.assert_array_equal(
        pixels(encode(Image.fromarray(array), icc_profile=profile)), array
    )


def test_pixels_may_be_written_to(encode):
    # torch.from_numpy warns of arrays that may not.
    for image in (Image.new("L", (SIZE, SIZE)), Image.new("RGB", (SIZE, SIZE))):
        for preprocessing in (RGB, GREY):
            decoded = decode(encode(image), preprocessing)
            assert decoded.image.flags.writeable
            assert decoded.image.flags.c_contiguous


def test_preprocessing_is_checked():
    with pytest.raises(ValidationError):
        Preprocessing(image_size=16, channels=2)
    with pytest.raises(ValidationError):
        Preprocessing(image_size=16, size=3)
    assert Preprocessing(image_size=16) == Preprocessing(image_size=16, channels=3)
    assert hash(Preprocessing(image_size=16)) == hash(Preprocessing(image_size=16))
