"""Labels, splits and masks from the folders, whichever of them is named as the source."""

from pathlib import Path

import pytest

from ganad.archive.listing import list_images
from ganad.storage import files as storage


@pytest.fixture
def make(tmp_path):
    def make(*paths):
        for path in paths:
            file = tmp_path / "set" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        return tmp_path / "set"

    return make


def facts(source):
    return {
        row["name"]: (row["label"], row["abnormal"], row["split"])
        for row in list_images([str(source)])
    }


def test_mvtec(image_folder):
    rows = list(list_images([str(image_folder)]))
    assert len(rows) == 56  # the masks are not among them
    counts = {}
    for row in rows:
        key = row["label"], row["abnormal"], row["split"]
        counts[key] = counts.get(key, 0) + 1
        assert (row["mask"] is not None) == (row["label"] == "crack")
        if row["mask"]:
            assert Path(row["mask"]).is_file()
            assert Path(row["mask"]).name == f"{Path(row['uri']).stem}_mask.png"
    assert counts == {
        ("good", False, "train"): 40,
        ("good", False, "test"): 8,
        ("crack", True, "test"): 8,
    }


@pytest.mark.parametrize(
    "part", ["test", "test/crack", "train", "train/good", "test/crack/003.png"]
)
def test_mvtec_from_any_folder_of_it(image_folder, part):
    def by_uri(source):
        keys = ("image_id", "label", "abnormal", "split", "mask")
        return {row["uri"]: [row[key] for key in keys] for row in list_images([str(source)])}

    whole, some = by_uri(image_folder), by_uri(image_folder / part)
    assert some
    assert some == {uri: whole[uri] for uri in some}


def test_several_categories(make):
    root = make("bottle/train/good/1.png", "bottle/test/broken/2.png", "cable/train/good/3.png")
    assert facts(root) == {
        "bottle/train/good/1.png": ("good", False, "train"),
        "bottle/test/broken/2.png": ("broken", True, "test"),
        "cable/train/good/3.png": ("good", False, "train"),
    }


def test_a_defect_without_masks(make):
    root = make("train/good/1.png", "test/bent/2.png", "ground_truth/cut/9_mask.png")
    assert facts(root)["test/bent/2.png"] == ("bent", True, "test")
    assert all(row["mask"] is None for row in list_images([str(root)]))


def test_masks_are_listed_once_per_defect(image_folder, monkeypatch):
    asked = []
    entries = storage.list_entries
    monkeypatch.setattr(storage, "list_entries", lambda uri: asked.append(uri) or entries(uri))
    seen = []
    for row in list_images([str(image_folder)]):
        seen.append(row["mask"] is not None)
        if len(seen) == 56:  # what is left over is looked for after the last one
            break
    assert sum(seen) == 8
    assert sorted(uri for uri in asked if "ground_truth" in uri) == [
        f"{image_folder}/ground_truth/{name}" for name in ("crack", "good")
    ]


def test_masks_named_as_the_source_are_images(image_folder):
    assert len(facts(image_folder / "ground_truth" / "crack")) == 8


def test_one_folder_per_class(make):
    root = make("cats/1.png", "dogs/deep/2.png", "3.png")
    assert facts(root) == {
        "cats/1.png": ("cats", None, None),
        "dogs/deep/2.png": ("dogs", None, None),
        "3.png": (None, None, None),
    }


@pytest.mark.parametrize("normal", ["good", "Normal", "OK"])
def test_a_class_that_is_normal_by_its_name(make, normal):
    # The abnormal class comes first: nothing may depend on the order.
    root = make("a_scratched/1.png", f"{normal}/2.png")
    assert facts(root) == {
        "a_scratched/1.png": ("a_scratched", True, None),
        f"{normal}/2.png": (normal, False, None),
    }


def test_classes_below_splits(make):
    root = make("train/cat/1.png", "train/dog/2.png", "test/dog/3.png", "val/cat/4.png")
    assert facts(root) == {
        "train/cat/1.png": ("cat", None, "train"),
        "train/dog/2.png": ("dog", None, "train"),
        "test/dog/3.png": ("dog", None, "test"),
        "val/cat/4.png": ("cat", None, None),
    }


def test_a_folder_that_happens_to_be_called_test(tmp_path):
    folder = tmp_path / "test" / "photos"
    folder.mkdir(parents=True)
    (folder / "1.png").touch()
    assert facts(folder) == {"1.png": (None, None, None)}


def test_globs_keep_the_layout(make):
    root = make("train/good/1.png", "test/bent/2.png")
    assert facts(f"{root}/*/*/*.png")["test/bent/2.png"] == ("bent", True, "test")
    assert facts(f"{root}/test")["bent/2.png"] == ("bent", True, "test")


def test_the_real_data(shared_data):
    rows = list(list_images([str(shared_data / "magnetic_tile")]))
    counts = (shared_data / "magnetic_tile" / "COUNTS.txt").read_text().split()
    wanted = {
        place.split("/", 1)[1]: int(num)
        for place, num in zip(counts[::2], counts[1::2], strict=True)
    }
    found = {}
    for row in rows:
        place = f"{row['split']}/{row['label']}"
        found[place] = found.get(place, 0) + 1
        assert row["abnormal"] == (row["label"] != "good")
        assert (row["mask"] is None) == (row["label"] == "good")
    assert found == {
        place: num for place, num in wanted.items() if not place.startswith("ground_truth")
    }
