"""Prefixes and globs on S3: the same rows as a folder's, page by page, and failures in words."""

from itertools import islice

import pytest

from ganad.archive.listing import list_images
from ganad.errors import ArchiveError
from ganad.storage import s3


@pytest.fixture
def bucket(s3, tmp_path):
    """A function that makes objects in a bucket of the test's own, and returns its url."""
    name = tmp_path.name.replace("_", "-").lower()[:40].strip("-")

    def make(*keys):
        (s3.root / name).mkdir(exist_ok=True)
        for key in keys:
            s3.put(f"{name}/{key}", b"1234")
        return s3.url(name)

    return make


def names(*sources):
    return [row["name"] for row in list_images(sources)]


def test_a_prefix_is_a_folder(bucket):
    url = bucket(
        "photos/a.png", "photos/sub/b.JPG", "photos2/c.png", "photos/.d.png", "photos/e.txt"
    )
    assert names(f"{url}/photos") == names(f"{url}/photos/") == ["a.png", "sub/b.JPG"]
    (row, _) = list_images([f"{url}/photos"])
    assert (row["uri"], row["size"]) == (f"{url}/photos/a.png", 4)


def test_a_whole_bucket(bucket):
    url = bucket("a.png", "b/c.png")
    assert names(url) == names(f"{url}/") == ["a.png", "b/c.png"]


def test_single_objects(bucket):
    url = bucket("b/c.png", "b/d.png")
    assert names(f"{url}/b/c.png") == ["c.png"]


def test_globs(bucket):
    url = bucket("x/1.png", "x/2.png", "x/2.txt", "y/2.png", "x/deep/2.png")
    assert names(f"{url}/*/2.png") == ["x/2.png", "y/2.png"]
    assert names(f"{url}/**/2.png") == ["x/2.png", "x/deep/2.png", "y/2.png"]
    assert names(f"{url}/x/[12].png") == ["1.png", "2.png"]
    assert names(f"{url}/x*") == ["x/1.png", "x/2.png", "x/deep/2.png"]


def test_mvtec(bucket, s3, image_folder):
    url = bucket()
    for file in image_folder.rglob("*.png"):
        s3.put(f"{url[5:]}/metal/{file.relative_to(image_folder)}", file.read_bytes())
    local = {row["name"]: row for row in list_images([str(image_folder)])}
    remote = {row["name"]: row for row in list_images([f"{url}/metal"])}
    assert local.keys() == remote.keys()
    for name, row in remote.items():
        for column in ("label", "abnormal", "split", "size"):
            assert row[column] == local[name][column]
        if local[name]["mask"]:
            assert row["mask"] == local[name]["mask"].replace(str(image_folder), f"{url}/metal")
    for part in ("test", "test/crack"):
        assert {row["image_id"]: row["label"] for row in list_images([f"{url}/metal/{part}"])} == {
            row["image_id"]: row["label"]
            for row in remote.values()
            if row["uri"].startswith(f"{url}/metal/{part}/")
        }


def test_one_folder_per_class(bucket):
    url = bucket("parts/bad/1.png", "parts/ok/2.png")
    assert {row["label"]: row["abnormal"] for row in list_images([f"{url}/parts"])} == {
        "bad": True,
        "ok": False,
    }


def test_rows_come_before_the_last_page_is_asked_for(bucket, monkeypatch):
    url = bucket(*(f"many/{number:03d}.png" for number in range(30)))
    fetched = []
    pages = s3.pages

    def small(folder, **options):
        for page in pages(folder, **options, keys=10):
            fetched.append(len(page[0]))
            yield page

    monkeypatch.setattr(s3, "pages", small)
    assert len(list(islice(list_images([f"{url}/many"]), 12))) == 12
    assert fetched == [10, 10]
    assert len(names(f"{url}/many")) == 30


def refused(source):
    with pytest.raises(ArchiveError) as caught:
        list(list_images([source]))
    message = str(caught.value)
    assert message.startswith(source)
    assert "\n" not in message
    return message


def test_nothing_below_the_prefix(bucket):
    url = bucket("a.png")
    assert "no objects below this prefix" in refused(f"{url}/nowhere")
    assert "no objects below this prefix" in refused(f"{url}/nowhere.png")
    assert "matches no images" in refused(f"{url}/*.jpg")


def test_no_images_below_the_prefix(bucket):
    assert "none of its 1 files is an image" in refused(f"{bucket('x/a.txt')}/x")


@pytest.mark.parametrize("source", ["s3://no-such-bucket/x", "s3://no-such-bucket/x/*.png"])
def test_no_such_bucket(s3, source):
    assert "there is no such bucket; check its name" in refused(source)


@pytest.mark.parametrize("source", ["s3://bucket/x", "s3://bucket/x/*.png", "s3://bucket/x.png"])
def test_without_credentials(s3, source, monkeypatch):
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert "no AWS credentials were found; set AWS_PROFILE" in refused(source)


def test_a_dead_endpoint(s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert "cannot connect to 127.0.0.1:9; check AWS_ENDPOINT_URL" in refused("s3://bucket/x")


def test_a_bucket_is_not_searched_by_wildcard(s3):
    assert "is not a valid S3 address" in refused("s3://buck*/x.png")
