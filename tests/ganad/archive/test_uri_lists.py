"""Lists of URIs, as a query writes them: the same images as where they lie."""

import csv
import io
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ganad.archive.listing import list_images
from ganad.archive.manifest import write_manifest
from ganad.errors import ArchiveError, ConfigError
from ganad.images.decode import Preprocessing
from ganad.images.load import load_images
from ganad.storage import files as storage

GREY = Preprocessing(image_size=4, channels=1)


def picture(value):
    buffer = io.BytesIO()
    Image.new("L", (4, 4), value).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(params=["local", "s3"])
def base(request, tmp_path):
    if request.param == "local":
        return str(tmp_path / "data")
    return request.getfixturevalue("s3").url(f"lists/{tmp_path.name}")


@pytest.fixture
def rows(base, request):
    """The rows of loose images, a tar and a Parquet file."""
    if base.startswith("s3://"):
        (request.getfixturevalue("s3").root / "lists").mkdir(exist_ok=True)
    for number, place in enumerate(("train/good/0.png", "test/good/1.png", "test/cut/2.png")):
        storage.write_bytes(f"{base}/set/{place}", picture(number))
    storage.write_bytes(f"{base}/set/ground_truth/cut/2_mask.png", picture(255))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number in (3, 4):
            member = tarfile.TarInfo(f"{number}.png")
            member.size = len(picture(number))
            tar.addfile(member, io.BytesIO(picture(number)))
    storage.write_bytes(f"{base}/a.tar", buffer.getvalue())
    table = pa.table({"image": [picture(5), picture(6)], "id": ["x", "y"]})
    storage.write_table(f"{base}/b.parquet", table)
    return list(list_images([f"{base}/set", f"{base}/a.tar", f"{base}/b.parquet"]))


def write(uri, rows, columns):
    if uri.endswith(".csv"):
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        storage.write_bytes(uri, text.getvalue().encode())
    else:
        table = pa.Table.from_pylist(rows).select(columns)
        storage.write_table(uri, table)
    return uri


def values(rows):
    return [one.image.max() for (one,) in load_images(rows, [GREY])]


def by_id(rows, leave_out=()):
    return {
        row["image_id"]: {key: value for key, value in row.items() if key not in leave_out}
        for row in rows
    }


ALL = ["uri", "member", "name", "label", "abnormal", "mask", "split"]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_list_of_everything_gives_the_rows_of_the_archive(base, rows, ending):
    uri = write(f"{base}/list.{ending}", rows, ["image_id", "size", *ALL])
    listed = list(list_images([uri]))
    assert by_id(listed) == by_id(rows)
    assert sorted(values(listed)) == list(range(7))


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_uris_alone_are_enough_for_loose_images(base, rows, ending):
    loose = [row for row in rows if row["member"] is None]
    uri = write(f"{base}/list.{ending}", loose, ["uri"])
    listed = list(list_images([uri]))
    assert by_id(listed, ["name", "split"]) == by_id(loose, ["name", "split"])
    assert {row["name"] for row in listed} == {row["uri"] for row in loose}


def test_members_need_no_more_than_their_shard_and_name(base, rows):
    members = [row for row in rows if row["member"]]
    uri = write(f"{base}/list.csv", members, ["uri", "member"])
    listed = list(list_images([uri]))
    assert by_id(listed, ["name"]) == by_id(members, ["name"])
    assert [row["name"] for row in listed] == [
        *("a.tar#3.png", "a.tar#4.png", "b.parquet#0", "b.parquet#1")
    ]


def test_paths_begin_in_the_folder_of_the_list(base, rows):
    storage.write_bytes(f"{base}/set/list.csv", b"path;label\n./test/cut/2.png;dent\n;\n")
    (row,) = list_images([f"{base}/set/list.csv"])
    assert (row["uri"], row["name"]) == (f"{base}/set/test/cut/2.png", "test/cut/2.png")
    assert row["label"] == "dent"
    assert row["mask"] == f"{base}/set/ground_truth/cut/2_mask.png"


def test_labels_are_judged_by_their_names_unless_the_list_says_so(base, rows, tmp_path):
    said = [{"uri": row["uri"], "label": row["label"]} for row in rows if row["label"]]
    uri = write(f"{base}/list.csv", said, ["uri", "label"])
    manifest = write_manifest([uri], str(tmp_path / "judged"))
    assert (manifest.num_normal, manifest.num_abnormal) == (2, 1)
    said = [{**each, "abnormal": "no"} for each in said]
    uri = write(f"{base}/list.csv", said, ["uri", "label", "abnormal"])
    manifest = write_manifest([uri], str(tmp_path / "said"))
    assert (manifest.num_normal, manifest.num_abnormal) == (3, 0)


def test_an_image_named_twice_is_listed_once(base, rows, tmp_path):
    """A query of two models has two rows for each image; a list may also name other sources'."""
    uri = write(f"{base}/list.parquet", rows * 2, ALL)
    manifest = write_manifest([uri], str(tmp_path / "one"))
    assert (manifest.num_images, manifest.merged) == (7, 7)
    manifest = write_manifest([uri, f"{base}/set"], str(tmp_path / "two"))
    assert (manifest.num_images, manifest.merged) == (7, 10)


def test_what_is_gone_is_a_row_with_an_error(base, rows):
    storage.remove(f"{base}/set/test/good/1.png")
    gone = [
        {"uri": f"{base}/set/test/good/1.png", "member": ""},
        {"uri": f"{base}/a.tar", "member": "9.png"},
        {"uri": f"{base}/b.parquet", "member": "9"},
        {"uri": f"{base}/c.tar", "member": "1.png"},
        {"uri": f"{base}/c.parquet", "member": "1"},
        {"uri": f"{base}/a.tar", "member": "4.png"},
    ]
    uri = write(f"{base}/list.csv", gone, ["uri", "member"])
    listed = list(list_images([uri]))
    errors = [one.error for (one,) in load_images(listed, [GREY])]
    found = {
        (row["uri"].rpartition("/")[2], row["member"]): error
        for row, error in zip(listed, errors, strict=True)
    }
    assert found["1.png", None].startswith("cannot be fetched: there is no such")
    assert found["a.tar", "9.png"] == "the shard has no such member"
    assert found["b.parquet", "9"] == "the file has no such row"
    assert "there is no such" in found["c.tar", "1.png"]
    assert "there is no such" in found["c.parquet", "1"]
    assert found["a.tar", "4.png"] is None


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        (
            "name,score\nx,1\n",
            ArchiveError,
            "names the columns name, score; a list of",
        ),
        ("", ArchiveError, "names the columns nothing; a list of images needs"),
        ("uri\n", ArchiveError, "names no images; give a list that has some lines"),
        ("uri,label\n,good\n", ConfigError, "line 2 has no uri: name the image"),
        ("uri,abnormal\nx.png,maybe\n", ConfigError, "line 2 has abnormal 'maybe'"),
        ("uri\ngs://bucket/x.png\n", ArchiveError, "gs://bucket/x.png: cannot be read"),
    ],
)
def test_what_is_wrong_in_a_list(tmp_path, monkeypatch, text, error, said):
    (tmp_path / "list.csv").write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as caught:
        list(list_images(["list.csv"]))
    assert str(caught.value).startswith("list.csv: ")
    assert said in str(caught.value)


def test_a_parquet_file_of_neither_bytes_nor_uris(tmp_path):
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    with pytest.raises(ArchiveError, match=r"has no column of bytes; .* or name them in a column"):
        list(list_images([str(tmp_path / "a.parquet")]))


def test_a_csv_among_the_files_of_a_folder_is_not_a_list(tmp_path):
    (tmp_path / "a.png").write_bytes(picture(1))
    (tmp_path / "labels.csv").write_text("path,label\na.png,good\n")
    assert [row["name"] for row in list_images([f"{tmp_path}/*"])] == ["a.png"]
