"""Local folders, globs and single files become rows; what cannot be listed is told in words."""

import os
from itertools import islice

import pytest

from ganad.archive.layout import Surroundings
from ganad.archive.listing import Listing, are_apart, list_images
from ganad.archive.manifest import SCHEMA
from ganad.errors import ArchiveError


@pytest.fixture
def tree(tmp_path):
    """A function that makes files, and returns their folder."""

    def make(*paths, data=b"1234"):
        for path in paths:
            file = tmp_path / "photos" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        return tmp_path / "photos"

    return make


@pytest.fixture
def opened(monkeypatch):
    """Names of the folders that were opened."""
    seen = []
    scandir = os.scandir
    monkeypatch.setattr(
        os, "scandir", lambda folder: seen.append(os.path.basename(folder)) or scandir(folder)
    )
    return seen


def names(*sources):
    return [row["name"] for row in list_images([str(source) for source in sources])]


def test_a_row(tree):
    root = tree("cats/a.png")
    (row,) = list_images([str(root)])
    assert list(row) == SCHEMA.names
    assert row == {
        "image_id": row["image_id"],
        "uri": str(root / "cats/a.png"),
        "member": None,
        "offset": None,
        "size": 4,
        "name": "cats/a.png",
        "label": "cats",
        "abnormal": None,
        "mask": None,
        "split": None,
        "column": None,
        "error": None,
    }
    assert len(row["image_id"]) == 16
    assert int(row["image_id"], 16) > 0


def test_ids_follow_from_the_place_alone(tree):
    root = tree("a.png", "sub/b.png")
    ids = {row["uri"]: row["image_id"] for row in list_images([str(root)])}
    again = {row["uri"]: row["image_id"] for row in list_images([str(root / "sub"), str(root)])}
    assert ids == again
    assert len(set(ids.values())) == 2


def test_folders_are_walked_in_order(tree):
    root = tree("b/2.png", "b/10.png", "a.png", "c.png", "b/a/x.png", "B.png")
    expected = ["B.png", "a.png", "b/10.png", "b/2.png", "b/a/x.png", "c.png"]
    assert names(root) == expected
    assert names(f"{root}/") == expected


def test_all_suffixes_in_any_case(tree):
    files = ["1.jpg", "2.JPEG", "3.PnG", "4.bmp", "5.tif", "6.TIFF", "7.webp", "8.gif"]
    root = tree(*files, "9.txt", "10.png.bak", "11", "12.pngx")
    listing = Listing(str(root), Surroundings())
    assert [row["name"] for row in listing.rows()] == files
    assert listing.num_skipped == 4


def test_hidden_files_and_folders_are_left_out(tree):
    root = tree("a.png", ".b.png", "._a.png", ".cache/c.png")
    listing = Listing(str(root), Surroundings())
    assert [row["name"] for row in listing.rows()] == ["a.png"]
    assert listing.num_skipped == 0


def test_links_back_to_a_folder_above_end(tree):
    root = tree("a.png", "sub/b.png")
    (root / "sub" / "loop").symlink_to(root)
    (root / "sub" / "self").symlink_to(root / "sub" / "self")
    assert names(root) == ["a.png", "sub/b.png"]


def test_links_to_other_folders_are_followed(tree, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "c.png").write_bytes(b"1")
    root = tree("a.png")
    (root / "link").symlink_to(tmp_path / "elsewhere")
    assert names(root) == ["a.png", "link/c.png"]


def test_a_link_to_nothing_stays_a_row(tree):
    root = tree("a.png")
    (root / "gone.png").symlink_to(root / "nowhere.png")
    rows = list(list_images([str(root)]))
    assert [(row["name"], row["size"]) for row in rows] == [("a.png", 4), ("gone.png", None)]


def test_a_pipe_with_the_name_of_an_image_is_a_row_with_an_error(tree):
    """Reading it would wait without end."""
    root = tree("a.png")
    os.mkfifo(root / "pipe.png")
    os.mkfifo(root / "pipe.txt")
    listing = Listing(str(root), Surroundings())
    errors = {row["name"]: row["error"] for row in listing.rows()}
    assert errors == {"a.png": None, "pipe.png": "is a pipe or a device, not a file"}
    assert listing.num_skipped == 1


@pytest.mark.parametrize("source", ["/dev/zero", "/dev/null"])
def test_a_device_as_the_source(source):
    assert "there is no such file or folder" in refused(source)


def test_globs(tree):
    root = tree("a.png", "x1/b.png", "x2/c.png", "x2/deep/d.png", "y/e.png", "x2/f.txt")
    assert names(f"{root}/*.png") == ["a.png"]
    assert names(f"{root}/x*/*.png") == ["x1/b.png", "x2/c.png"]
    assert names(f"{root}/x*") == ["x1/b.png", "x2/c.png", "x2/deep/d.png"]
    assert names(f"{root}/**/[cd].png") == ["x2/c.png", "x2/deep/d.png"]


def test_a_glob_does_not_enter_what_it_cannot_match(tree, opened):
    root = tree("a/x.png", "a/deep/x.png", "b/y.png")
    assert names(f"{root}/a*/*.png") == ["a/x.png"]
    assert "b" not in opened


def test_names_with_wildcards_in_them(tree):
    root = tree("set[1]/a.png", "b*.png")
    assert names(root / "set[1]") == ["a.png"]
    assert names(root / "b*.png") == ["b*.png"]


def test_strange_names(tree):
    files = ["a b.png", "a\nb.png", "a#b.png", "'\"<&>.png", "ü.png", "日本.png"]
    root = tree(*files)
    assert sorted(names(root)) == sorted(files)


def test_single_images_and_several_sources(tree):
    root = tree("a.png", "sub/b.png")
    assert names(root / "a.png") == ["a.png"]
    assert names(root / "sub", root / "a.png", root / "a.png") == ["b.png", "a.png", "a.png"]


def test_relative_sources(tree, monkeypatch):
    root = tree("sub/a.png")
    monkeypatch.chdir(root)
    (row,) = list_images(["sub"])
    assert row["uri"] == str(root / "sub/a.png")
    assert [row["name"] for row in list_images(["."])] == ["sub/a.png"]


def test_rows_come_before_the_listing_ends(tree, opened):
    root = tree(*(f"{folder}/{number}.png" for folder in "abc" for number in range(50)))
    first = list(islice(list_images([str(root)]), 60))
    assert first[0]["name"] == "a/0.png"
    assert "b" in opened
    assert "c" not in opened


def refused(source):
    with pytest.raises(ArchiveError) as caught:
        list(list_images([str(source)]))
    message = str(caught.value)
    assert message.startswith(str(source))
    assert "\n" not in message
    return message


def test_no_such_folder(tmp_path):
    assert "no such file or folder" in refused(tmp_path / "nowhere")
    assert "no such file or folder" in refused(f"{tmp_path}/nowhere/*.png")


def test_relative_names_come_back_as_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refused("nowhere").startswith("nowhere: ")


def test_an_empty_folder(tmp_path):
    assert "the folder holds no images" in refused(tmp_path)


def test_a_folder_without_images(tree):
    root = tree("a.txt", "b.csv")
    assert "none of its 2 files is an image; give some that end in .jpg, .jpeg, .png" in refused(
        root
    )


def test_a_folder_of_shards(tree):
    root = tree("a.tar", "b.tar")
    assert f"name them with '{root}/*.tar'" in refused(root)


def test_a_glob_that_matches_nothing(tree):
    assert "matches no images" in refused(f"{tree('a.png')}/*.jpg")


def test_a_file_that_is_no_image(tree):
    assert "is neither an image" in refused(tree("a.txt") / "a.txt")


def test_other_schemes(tmp_path):
    assert "cannot be read; give a local path or s3://" in refused("gs://bucket/x")


def test_a_name_that_is_not_utf8_is_a_row_with_an_error_and_the_rest_goes_on(tree):
    root = os.fsencode(tree("b.png", "good/c.png"))
    os.mkdir(root + b"/d\xe4nt")
    for name in (b"a\xff.png", b"a\xfe.png", b"d\xe4nt/e.png"):
        with open(os.path.join(root, name), "wb"):
            pass
    rows = list(list_images([os.fsdecode(root)]))
    shown = ["a\\xfe.png", "a\\xff.png", "d\\xe4nt/e.png"]
    errors = {row["name"]: row["error"] for row in rows}
    assert {name for name, error in errors.items() if error} == set(shown)
    assert set(errors.values()) == {None, "the file name is not UTF-8; rename the file"}
    assert len({row["image_id"] for row in rows}) == 5
    for row in rows:
        for value in filter(lambda value: isinstance(value, str), row.values()):
            value.encode()


def test_a_folder_that_may_not_be_read(tree, monkeypatch):
    # Taking the right away would not do: the tests may run as root, who reads everything.
    root = tree("a.png", "sub/b.png")
    scandir = os.scandir

    def deny(folder):
        if str(folder) == f"{root}/sub":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", deny)
    assert f"{root}/sub: permission denied" in refused(root)


@pytest.mark.parametrize(
    ("sources", "apart"),
    [
        (["/data/a"], True),
        (["/data/a", "/data/b"], True),
        (["/data/a", "/data/ab", "s3://data/a"], True),
        (["/data/a", "/data/a"], False),
        (["/data/b", "/data/a", "/data"], False),
        (["/data/a.tar", "/data/b.tar"], True),
        (["/data/2024-*/x", "/data/2025-*"], True),
        (["/data/*.tar", "/data2/*.tar"], True),
        (["/data/*.tar", "/data/*.parquet"], False),
        (["/data/a*", "/data/abc/d.png"], False),
        (["/", "/data"], False),
    ],
)
def test_sources_that_can_have_no_image_in_common(sources, apart):
    assert are_apart(sources) is apart
    assert are_apart(sources[::-1]) is apart
