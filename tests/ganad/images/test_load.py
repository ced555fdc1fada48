"""Rows to pixels: fetched once, in order, from files, objects and tars; faults become texts."""

import io
import os

import numpy as np
import pytest
from PIL import Image
from tenacity import wait_fixed, wait_none

from ganad.archive.listing import list_images
from ganad.errors import ArchiveError
from ganad.images import load
from ganad.images.decode import Preprocessing
from ganad.images.load import load_images, read_image
from ganad.storage import files as storage
from ganad.storage import retry as patience
from tests.proxy import Proxy

GREY = Preprocessing(image_size=4, channels=1)
RGB = Preprocessing(image_size=8)


def picture(value):
    buffer = io.BytesIO()
    Image.new("L", (6, 5), value).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(params=["local", "s3"])
def rows(request, tmp_path):
    """A function that stores files, and returns their rows in the order of the arguments."""

    def make(**files):
        if request.param == "local":
            for name, data in files.items():
                (tmp_path / f"{name}.png").write_bytes(data)
            source = str(tmp_path)
        else:
            s3 = request.getfixturevalue("s3")
            for name, data in files.items():
                s3.put(f"load/{tmp_path.name}/{name}.png", data)
            source = s3.url(f"load/{tmp_path.name}")
        found = {row["name"]: row for row in list_images([source])}
        return [found[f"{name}.png"] for name in files]

    return make


def test_order_and_shapes(rows):
    images = rows(**{f"n{value}": picture(value) for value in (9, 3, 7, 1)})
    loaded = load_images(images, [GREY, RGB])
    assert [[one.image.shape for one in row] for row in loaded] == [[(1, 4, 4), (3, 8, 8)]] * 4
    assert [row[0].image.max() for row in loaded] == [9, 3, 7, 1]
    assert [row[1].image.min() for row in loaded] == [9, 3, 7, 1]
    assert (loaded[0][0].width, loaded[0][0].height) == (6, 5)
    for one, other in zip(loaded, load_images(images, [GREY, RGB], num_threads=1), strict=True):
        np.testing.assert_array_equal(one[1].image, other[1].image)


def test_each_file_is_fetched_once(rows, monkeypatch):
    images = rows(a=picture(1), b=picture(2))
    fetched = []
    read = storage.read
    monkeypatch.setattr(storage, "read", lambda uri, *rest: fetched.append(uri) or read(uri, *rest))
    load_images(images, [GREY, RGB, GREY])
    assert sorted(fetched) == sorted(row["uri"] for row in images)


def test_faults_are_texts_in_their_place(rows):
    images = rows(a=picture(1), b=b"", c=b"hello", d=picture(4)[:-30], e=picture(5), gone=b"x")
    storage.remove(images[-1]["uri"])
    loaded = load_images(images, [GREY, RGB])
    errors = [row[0].error for row in loaded]
    assert [row[1].error for row in loaded] == errors
    assert errors[0] is None
    assert errors[1] == "the file is empty"
    assert errors[2].startswith("not an image")
    assert errors[3] == "truncated: the file ends before its image does"
    assert errors[4] is None
    assert errors[5].startswith("cannot be fetched: there is no such")
    assert loaded[4][0].image.max() == 5


def test_error_texts_name_no_place(rows):
    (row,) = rows(gone=picture(1))
    storage.remove(row["uri"])
    ((one,),) = load_images([row], [GREY])
    assert row["uri"] not in one.error
    assert "gone" not in one.error


def test_no_rows_no_images():
    assert load_images([], [GREY]) == []


def test_a_file_that_grew_since_it_was_listed(rows):
    (row,) = rows(a=b"1")
    storage.write_bytes(row["uri"], picture(8))
    ((one,),) = load_images([row], [GREY])
    assert one.image.max() == 8


def test_a_range_of_a_file(rows):
    (row,) = rows(a=b"head" + picture(5) + b"tail")
    ranged = {**row, "offset": 4, "size": len(picture(5))}
    ((one,),) = load_images([ranged], [GREY])
    assert one.image.max() == 5
    ((one,),) = load_images([{**ranged, "size": 10_000}], [GREY])
    assert one.error == "truncated: the archive ends before this member does"


def test_a_file_too_large_for_any_image_is_not_read(tmp_path):
    path = tmp_path / "huge.png"
    path.touch()
    os.truncate(path, 2**40)  # a hole: it takes no space
    ((one,),) = load_images(list(list_images([str(path)])), [GREY])
    assert one.error == f"the file of {2**40} bytes is larger than any image of max_pixels"


def test_a_file_that_grew_beyond_any_image_is_read_no_further_than_the_limit(rows, monkeypatch):
    limit = 16 * 8 + 100
    monkeypatch.setattr(load, "BYTES_BESIDE", 100)
    kind = Preprocessing(image_size=4, channels=1, max_pixels=16)
    (row,) = rows(a=b"1")
    storage.write_bytes(row["uri"], bytes(limit + 5000))
    lengths = []
    read = storage.read

    def watched(*arguments):
        data = read(*arguments)
        lengths.append(len(data))
        return data

    monkeypatch.setattr(storage, "read", watched)
    for place in ({}, {"offset": None, "size": None}, {"offset": 3, "size": None}):
        ((one,),) = load_images([{**row, **place}], [kind])
        assert (
            one.error
            == f"the file of more than {limit} bytes is larger than any image of max_pixels"
        )
    assert lengths == [limit + 1] * 3


@pytest.mark.timeout(60)
@pytest.mark.parametrize("place", [{}, {"offset": 4, "size": 10}], ids=["file", "member"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_row_that_names_a_pipe_or_a_device_neither_hangs_nor_fills_the_memory(
    tmp_path, kind, place
):
    path = "/dev/zero"
    if kind == "pipe":
        path = str(tmp_path / "a.png")
        os.mkfifo(path)
    ((one,),) = load_images([{"uri": path, "offset": None, "size": None, **place}], [GREY])
    assert one.error.startswith("cannot be fetched")
    with pytest.raises(ArchiveError, match=f"^{path}: "):
        read_image(path)


@pytest.mark.parametrize("place", [{"offset": -1, "size": 5}, {"offset": 0, "size": -1}])
def test_a_negative_place_in_an_archive_is_an_error(rows, place):
    (row,) = rows(a=picture(1))
    ((one,),) = load_images([{**row, **place}], [GREY])
    assert one.error == "its place in the archive is negative: make the manifest again"


def test_an_empty_object_is_empty_and_no_fault_of_the_storage(rows):
    (row,) = rows(a=b"")
    ((one,),) = load_images([row], [GREY])
    assert one.error == "the file is empty"


def test_a_folder_in_a_files_place(tmp_path):
    ((one,),) = load_images([{"uri": str(tmp_path), "offset": None, "size": None}], [GREY])
    assert one.error.startswith("cannot be fetched: is not a regular file")


def test_without_credentials_it_is_a_text_at_once(s3, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setattr(patience, "WAIT", wait_fixed(60))
    row = {"uri": "s3://bucket/a.png", "offset": None, "size": None}
    ((one,),) = load_images([row], [GREY])
    assert one.error.startswith("cannot be fetched: no AWS credentials")


def test_a_server_that_hangs_up_is_asked_again(s3, monkeypatch):
    s3.put("load/flaky/a.png", picture(6))
    monkeypatch.setattr(patience, "WAIT", wait_none())
    proxy = Proxy(s3.endpoint)
    proxy.refuse_next = 8
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    row = {"uri": "s3://load/flaky/a.png", "offset": None, "size": None}
    ((one,),) = load_images([row], [GREY])
    proxy.close()
    assert proxy.num_spoilt == 8
    assert one.error is None
    assert one.image.max() == 6


def test_a_server_that_is_gone_is_given_up(s3, monkeypatch):
    monkeypatch.setattr(patience, "WAIT", wait_none())
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    row = {"uri": "s3://load/a.png", "offset": None, "size": None}
    ((one,),) = load_images([row], [GREY])
    assert one.error == "cannot be fetched: cannot connect to 127.0.0.1:9; check AWS_ENDPOINT_URL"
