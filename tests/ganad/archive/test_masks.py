"""Masks in the styles of the common data sets, and those that belong to no image."""

import pytest

from ganad.archive.layout import Surroundings
from ganad.archive.listing import Listing, list_images
from ganad.archive.manifest import write_manifest
from ganad.archive.masks import index_masks


@pytest.fixture(params=["local", "s3"])
def make(request, tmp_path):
    """A function that makes empty files, locally or on S3, and returns the folder."""

    def make(*paths):
        if request.param == "local":
            for path in paths:
                file = tmp_path / "set" / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(b"1")
            return str(tmp_path / "set")
        s3 = request.getfixturevalue("s3")
        for path in paths:
            s3.put(f"masks/{tmp_path.name}/{path}", b"1")
        return s3.url(f"masks/{tmp_path.name}")

    return make


def masks(source):
    return {
        row["name"]: row["mask"] and row["mask"].removeprefix(f"{source}/")
        for row in list_images([source])
        if row["abnormal"]
    }


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("test/cut/x.png", "ground_truth/cut/x_mask.png"),  # MVTec AD, MPDD
        ("test/ko/0001.bmp", "ground_truth/ko/0001.png"),  # BTAD
        ("test/ko/0001.bmp", "ground_truth/ko/0001.bmp"),
        ("test/logical_anomalies/000.png", "ground_truth/logical_anomalies/000/000.png"),  # LOCO
        ("test/cut/x.jpg", "ground_truth/cut/x.png"),
        ("test/cut/x.png", "ground_truth/cut/x_mask.PNG"),
        ("test/cut/x.png", "ground_truth/cut/x_Mask.bmp"),
        ("test/cut/x.png", "ground_truth/cut/x_GT.png"),
        ("test/cut/x.png", "ground_truth/cut/x_label.tif"),
        ("test/cut/a.b.png", "ground_truth/cut/a.b_mask.png"),
    ],
)
def test_the_styles_of_the_common_data_sets(make, image, mask):
    root = make("train/good/1.png", "test/good/2.png", image, mask)
    expected = mask.rpartition("/")[0] if "000/" in mask else mask
    assert masks(root) == {image: expected}
    listing = Listing(root, Surroundings())
    list(listing.rows())
    assert listing.notes == []


def test_masks_that_belong_to_no_image_are_said_when_it_is_indexed(make, tmp_path):
    """Hours later the pixel figures were empty."""
    root = make(
        "train/good/1.png",
        "test/cut/1.png",
        "test/cut/2.png",
        "test/dent/3.png",
        "ground_truth/cut/1_mask.png",
        "ground_truth/cut/2-segmentation.png",
        "ground_truth/cut/notes.txt",
        "ground_truth/scratch/9.png",
    )
    assert masks(root) == {
        "test/cut/1.png": "ground_truth/cut/1_mask.png",
        "test/cut/2.png": None,
        "test/dent/3.png": None,
    }
    stray, bare = write_manifest([root], str(tmp_path / "out")).notes
    assert stray == (
        f"{root}: 3 masks belong to no image, the first {root}/ground_truth/cut/2-segmentation.png;"
        f" call the mask of x.png x_mask.png or x.png, or put it into a folder x"
    )
    assert bare == (
        f"{root}: 2 abnormal images have no mask in ground_truth, the first {root}/test/cut/2.png"
    )


def test_a_source_below_the_tree_says_nothing_of_the_rest(make):
    root = make(
        "train/good/1.png", "test/cut/1.png", "ground_truth/cut/1.png", "ground_truth/dent/2.png"
    )
    listing = Listing(f"{root}/test/cut", Surroundings())
    (row,) = listing.rows()
    assert row["mask"] == f"{root}/ground_truth/cut/1.png"
    assert listing.notes == []


def test_without_a_folder_of_masks_nothing_is_said(make):
    listing = Listing(make("train/good/1.png", "test/cut/1.png"), Surroundings())
    assert len(list(listing.rows())) == 2
    assert listing.notes == []


def test_the_style_of_mvtec_goes_first():
    entries = [("x.png", False), ("x_mask.png", False), ("x", True), ("y", True)]
    assert index_masks(entries)["x"] == "x_mask.png"
    assert index_masks(entries)["y"] == "y"
