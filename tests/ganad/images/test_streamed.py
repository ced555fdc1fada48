"""Images decoded whenever they are asked for."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from ganad.errors import ArchiveError
from ganad.images.decode import Preprocessing
from ganad.images.streamed import Streamed

KIND = Preprocessing(image_size=4, channels=1)
PARTS = ["train", "calibration", "train", "train", "calibration", "train"]


@pytest.fixture
def rows(tmp_path: Path) -> pa.Table:
    """Six grey squares, each of the level of its number; every other one belongs to training."""
    for level in range(6):
        Image.new("L", (4, 4), level).save(tmp_path / f"{level}.png")
    table = pa.table({"uri": [str(tmp_path / f"{level}.png") for level in range(6)]})
    for name, kind in (("offset", pa.int64()), ("size", pa.int64()), ("column", pa.string())):
        table = table.append_column(name, pa.nulls(6, kind))
    return table.append_column("part", pa.array(PARTS))


def levels(pixels: np.ndarray) -> list[int]:
    assert pixels.dtype == np.uint8
    assert all((image == image.flat[0]).all() for image in pixels)
    return [int(image.flat[0]) for image in pixels]


@pytest.mark.parametrize("num_threads", [1, 2, 16])
def test_images_come_in_the_order_that_is_asked_for(rows: pa.Table, num_threads: int) -> None:
    images = Streamed(rows, KIND, num_threads=num_threads)
    assert len(images) == 6
    order = np.array([5, 0, 3, 0])
    assert images.take(order).shape == (4, 1, 4, 4)
    assert levels(images.take(order)) == [5, 0, 3, 0]
    assert images.take(np.array([], np.int64)).shape == (0, 1, 4, 4)


def test_crops_are_cut_out_of_what_take_gives(rows: pa.Table, tmp_path: Path) -> None:
    pixels = np.arange(16, dtype=np.uint8).reshape(4, 4)
    Image.fromarray(pixels).save(tmp_path / "1.png")
    images = Streamed(rows, KIND)
    crops = images.crops(np.array([1, 1]), np.array([[0, 1], [2, 0]]), 2)
    np.testing.assert_array_equal(crops[:, 0], [pixels[0:2, 1:3], pixels[2:4, 0:2]])


def test_an_image_that_vanished_is_replaced_by_the_next_of_its_part_and_told_of_once(
    rows: pa.Table, tmp_path: Path
) -> None:
    told: list[str] = []
    images = Streamed(rows, KIND, on_bad=told.append)
    (tmp_path / "3.png").unlink()
    (tmp_path / "4.png").write_bytes(b"no image")
    (tmp_path / "5.png").unlink()
    # Whatever else is asked for; 3 -> 5 -> 0 round the end, and 4 -> 1 of the held-out ones.
    assert levels(images.take(np.array([2, 3]))) == [2, 0]
    assert levels(images.take(np.array([3]))) == [0]
    assert levels(images.take(np.array([4]))) == [1]
    assert [sentence.split(" can no longer")[0] for sentence in told] == [
        str(tmp_path / "3.png"),
        str(tmp_path / "4.png"),
    ]


def test_an_archive_that_vanished_ends_the_run(rows: pa.Table, tmp_path: Path) -> None:
    for path in tmp_path.glob("*.png"):
        path.unlink()
    with pytest.raises(
        ArchiveError, match=rf"^{tmp_path}/2\.png: .*any of 3 images be read.* again"
    ):
        Streamed(rows, KIND).take(np.array([2]))
