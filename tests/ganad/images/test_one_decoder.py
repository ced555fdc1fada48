"""Masks, thumbnails and reports open pictures with the decoder of images, and nothing else does."""

import ast
import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganad.errors import ArchiveError
from ganad.evaluation.pixels import read_mask
from tests.ganad.images.odd_images import odd_images, png

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("folder", ["ganad", "pipelines"])
def test_no_other_code_opens_a_picture(folder: str) -> None:
    found = [
        f"{path}:{node.lineno}"
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr == "open"
        and isinstance(node.value, ast.Name)
        and node.value.id == "Image"
    ]
    assert found == []


def dds() -> bytes:
    """Fields of 0xff, at which Pillow raises OverflowError."""
    return b"DDS " + struct.pack("<I", 124) + b"\xff" * 120


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "EPS images are not read"),
        ("a.dds", dds(), "DDS images are not read"),
        ("a.png", png(14_200, 14_200, 1, 0, [b"\0"]), "decompression bomb: 14200 x 14200"),
    ],
)
def test_a_mask_that_no_image_may_be_is_an_error_of_one_line(
    tmp_path: Path, name: str, data: bytes, reason: str
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(ArchiveError) as caught:
        read_mask(str(path))
    assert str(caught.value).startswith(f"{path} is not a mask ({reason}")
    assert str(caught.value).endswith("): give a PNG")


def test_every_odd_image_is_a_mask_or_an_error(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    for odd in odd_images():
        path.write_bytes(odd.data)
        if odd.error is None:
            height, width = read_mask(str(path)).shape
            assert (width, height) == odd.size, odd.name
        else:
            with pytest.raises(ArchiveError):
                read_mask(str(path))


@pytest.mark.parametrize("kind", ["uint8", "uint16"])
@pytest.mark.parametrize("white", [1, 255])
def test_masks_of_any_depth_and_white_show_their_defect(
    tmp_path: Path, kind: str, white: int
) -> None:
    values = np.zeros((5, 7), kind)
    values[1:3, 2:6] = white
    path = tmp_path / "mask.png"
    Image.fromarray(values).save(path)
    np.testing.assert_array_equal(read_mask(str(path)), values > 0)


def test_a_mask_is_turned_as_its_image_is(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    values = np.zeros((5, 7), np.uint16)
    values[0, 0] = 65535
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG", exif=exif)
    path = tmp_path / "mask.png"
    path.write_bytes(buffer.getvalue())
    np.testing.assert_array_equal(read_mask(str(path)), np.rot90(values > 0, -1))
