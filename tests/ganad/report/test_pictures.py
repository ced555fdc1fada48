import base64
import io

import numpy as np
import pytest
from PIL import Image

from ganad.heat import Heat
from ganad.report.pictures import fitted, heat_map, outline, thumbnail, thumbnail_side
from ganad.report.scale import Scale


def opened(uri):
    head, _, data = uri.partition(",")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert head == f"data:image/{image.format.lower()};base64"
    return image


def test_thumbnails_have_the_proportions_of_the_image():
    pixels = np.random.default_rng(0).integers(0, 255, (3, 256, 256), dtype=np.uint8)
    image = opened(thumbnail(pixels, 4000, 1000))
    assert (image.size, image.format, image.mode) == ((256, 64), "JPEG", "RGB")
    assert opened(thumbnail(pixels, 1, 1000)).size == (1, 256)


def test_small_images_are_kept_exactly_and_grey_ones_as_grey():
    pixels = np.repeat(np.arange(64, dtype=np.uint8).reshape(1, 8, 8), 3, axis=0)
    image = opened(thumbnail(pixels, 8, 8))
    assert (image.format, image.mode) == ("PNG", "L")
    np.testing.assert_array_equal(np.asarray(image), pixels[0])


def test_images_are_decoded_no_larger_than_shown():
    assert thumbnail_side([(28, 28), (20, 30)]) == 30
    assert thumbnail_side([(28, 28), (4000, 3000)]) == 256
    assert thumbnail_side([]) == 256
    assert fitted(3, 4000, 256) == (1, 256)


def test_heat_is_clear_at_the_low_end_and_brightest_at_the_high_end():
    values = np.zeros((32, 32))
    values[:, 16:] = 2.0
    image = np.asarray(opened(heat_map(values, Scale(0.0, 2.0), 320, 320)).convert("RGBA"), float)
    assert image[:, :12, 3].max() == 0
    assert image[:, 20:, 3].min() > 200
    assert image[:, 20:, :2].min() > 250  # pale yellow
    assert np.asarray(opened(heat_map(values, Scale(0.0, 2.0), 640, 160)).size).tolist() == [32, 8]


def test_values_beyond_the_scale_are_drawn_at_its_ends():
    one = heat_map(np.full((4, 4), 9.0), Scale(0, 1), 4, 4)
    assert one == heat_map(np.full((4, 4), 1.0), Scale(0, 1), 4, 4)
    low = heat_map(np.full((4, 4), -9.0), Scale(0, 1), 4, 4)
    assert low == heat_map(np.zeros((4, 4)), Scale(0, 1), 4, 4)


def test_the_scale_has_the_level_of_normal_images_in_its_middle():
    maps = [np.eye(4) * peak for peak in range(1, 101)]
    heat = Heat.of([*maps, None, np.full((4, 4), np.nan)], [str(i) for i in range(102)])
    assert len(heat) == 100
    scale = Scale.of(heat)
    assert (scale.low, scale.high) == (0.0, 2 * heat.level(0.01))
    assert Scale.of(Heat()) is None
    constant = Scale.of(Heat.of([np.ones((3, 3))], ["a"]))
    assert constant.high > constant.low


@pytest.mark.parametrize("size", [(40, 40), (3000, 2000)])
def test_the_outline_surrounds_the_mask(size):
    height, width = size
    mask = np.zeros(size, bool)
    mask[height // 4 : height // 2, width // 4 : width // 2] = True
    image = opened(outline(mask))
    alpha = np.asarray(image.convert("RGBA"))[..., 3] > 0
    rows, columns = np.nonzero(alpha)
    assert alpha.any()
    assert rows.min() == pytest.approx(image.height / 4, abs=1.5)
    assert columns.max() == pytest.approx(image.width / 2, abs=1.5)
    assert not alpha[image.height * 3 // 8, image.width * 3 // 8]  # hollow


def test_a_defect_of_one_pixel_is_outlined():
    mask = np.zeros((2000, 2000), bool)
    mask[777, 555] = True
    assert (np.asarray(opened(outline(mask)).convert("RGBA"))[..., 3] > 0).any()
    mask = np.zeros((9, 9), bool)
    mask[0, 0] = True  # at the border
    assert np.asarray(opened(outline(mask)).convert("RGBA"))[0, 0, 3] > 0
