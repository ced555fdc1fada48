"""Images in Parquet files: found, listed without their bytes, read a few rows at a time."""

import io
import json
import subprocess
import sys
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tenacity import wait_none

from ganad.archive import parquets
from ganad.archive.listing import list_images
from ganad.archive.manifest import write_manifest
from ganad.archive.parquets import read_cells
from ganad.errors import ArchiveError, Outage
from ganad.images import load
from ganad.images.decode import Preprocessing
from ganad.images.load import load_images
from ganad.storage import files as storage
from ganad.storage import retry as patience

GREY = Preprocessing(image_size=4, channels=1)


def picture(value):
    buffer = io.BytesIO()
    Image.new("L", (6, 5), value).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(params=["local", "s3"])
def store(request, tmp_path):
    """A function that writes columns as a Parquet file, and returns where it lies."""

    def write(name="images.parquet", row_group_size=3, metadata=None, **columns):
        table = pa.table(columns)
        sink = io.BytesIO()
        pq.write_table(table.replace_schema_metadata(metadata), sink, row_group_size)
        if request.param == "local":
            path = tmp_path / "files" / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(sink.getvalue())
            return str(path)
        return request.getfixturevalue("s3").put(f"cells/{tmp_path.name}/{name}", sink.getvalue())

    return write


def values(rows):
    return [one.image.max() for (one,) in load_images(rows, [GREY])]


def test_a_column_of_bytes(store):
    uri = store(image=[picture(n) for n in range(8)])
    rows = list(list_images([uri]))
    assert [row["name"] for row in rows] == [f"images.parquet#{n}" for n in range(8)]
    assert [row["member"] for row in rows] == [str(n) for n in range(8)]
    assert len({row["image_id"] for row in rows}) == 8
    assert {(row["uri"], row["column"]) for row in rows} == {(uri, "image")}
    assert values(rows) == list(range(8))
    chosen = [rows[n] for n in (7, 2, 2, 0)]
    assert values(chosen) == [7, 2, 2, 0]


def test_as_hugging_face_writes_them(store):
    images = [{"bytes": picture(n), "path": f"{n}.png"} for n in range(5)]
    names = {"info": {"features": {"label": {"names": ["good", "crack"], "_type": "ClassLabel"}}}}
    metadata = {"huggingface": json.dumps(names)}
    uri = store(image=images, label=[0, 1, 0, None, 7], metadata=metadata)
    rows = list(list_images([uri]))
    assert [row["name"] for row in rows] == [f"images.parquet#{n}.png" for n in range(5)]
    assert [row["label"] for row in rows] == ["good", "crack", "good", None, "7"]
    assert {row["column"] for row in rows} == {"image.bytes"}
    assert values(rows) == list(range(5))


def test_ids_come_from_a_column(store):
    uri = store(bytes=[picture(1), picture(2)], id=[17, 18], label=["good", "crack"])
    rows = list(list_images([uri]))
    assert [row["name"] for row in rows] == ["images.parquet#17", "images.parquet#18"]


def test_an_id_that_is_there_twice_hides_no_image(store, tmp_path):
    uri = store(image=[picture(1), picture(2)], id=["same", "same"])
    assert write_manifest([uri], str(tmp_path / "manifest")).num_images == 2


def test_labels_decide_what_is_abnormal(store, tmp_path):
    uri = store(image=[picture(1), picture(2)], label=["good", "crack"])
    manifest = write_manifest([uri], str(tmp_path / "manifest"))
    assert (manifest.num_normal, manifest.num_abnormal) == (1, 1)


def test_one_column_of_bytes_may_have_any_name(store):
    assert len(list(list_images([store(photograph=[picture(1)])]))) == 1


def test_several_columns_of_bytes(store):
    assert {row["column"] for row in list_images([store(thumb=[b""], image=[b""])])} == {"image"}
    with pytest.raises(ArchiveError, match=r"several columns of bytes \(left, right\); name"):
        list(list_images([store("two.parquet", left=[b""], right=[b""])]))


def test_no_column_of_bytes(store):
    uri = store(label=["good"])
    with pytest.raises(ArchiveError, match=r"images\.parquet: has no column of bytes; store the"):
        list(list_images([uri]))


def test_bad_cells_are_texts_in_their_place(store):
    cells = [picture(1), None, b"", b"hello", picture(5)[:-30], picture(6)]
    rows = list(list_images([store(image=cells)]))
    loaded = load_images(rows, [GREY])
    errors = [one.error for (one,) in loaded]
    assert errors[0] is errors[5] is None
    assert errors[1:3] == ["the row holds no bytes", "the file is empty"]
    assert errors[3].startswith("not an image")
    assert errors[4].startswith("truncated")


@pytest.mark.parametrize(
    ("column", "labels"),
    [
        (pa.array([0.0, None, 1.0, float("nan"), 2.5]), ["0", None, "1", None, "2.5"]),
        (pa.array([0, None, 1, -1, 7], pa.int8()), ["0", None, "1", "-1", "7"]),
        (pa.array([True, False, None, True, False]), ["True", "False", None, "True", "False"]),
        (pa.array(["", " ", " good ", "1.0", None]), [None, None, "good", "1", None]),
        (pa.array(["a", None, "a", "", "b"], pa.large_string()), ["a", None, "a", None, "b"]),
        (pa.array(["a", None, "a", "", "b"], pa.string_view()), ["a", None, "a", None, "b"]),
        (pa.array(["a", "b", "a", None, "b"]).dictionary_encode(), ["a", "b", "a", None, "b"]),
        (pa.array([3, 4, 3, None, 4]).dictionary_encode(), ["3", "4", "3", None, "4"]),
        (pa.nulls(5), [None] * 5),
    ],
)
def test_a_label_means_the_same_in_every_type_and_in_a_csv(store, tmp_path, column, labels):
    """pandas writes whole numbers with a missing one among them as 0.0, 1.0."""
    images, names = [picture(n) for n in range(5)], [f"{n}.png" for n in range(5)]
    uri = store(id=names, image=images, label=column)
    rows = list(list_images([uri]))
    assert [row["label"] for row in rows] == labels
    lines = "".join(
        f"images.parquet#{n}.png,{'' if value is None or value != value else value}\n"
        for n, value in enumerate(column.to_pylist())
    )
    (tmp_path / "labels.csv").write_text(f"name,label\n{lines}")
    csv = str(tmp_path / "labels.csv")
    manifest = write_manifest([uri], str(tmp_path / "manifest"), labels=csv)
    assert manifest.table(["label"])["label"].to_pylist() == labels


@pytest.mark.parametrize("column", [[[1], [2]], [{"a": 1}, {"a": 2}], [b"x", b"y"]])
def test_labels_of_another_type_are_said(store, tmp_path, column):
    uri = store(image=[picture(n) for n in range(2)], label=column)
    manifest = write_manifest([uri], str(tmp_path / "manifest"))
    assert manifest.labels == {}
    (note,) = manifest.notes
    assert note.startswith(f"{uri}: its column label is not used, because it holds ")
    assert note.endswith("; store labels as text or whole numbers")


def test_a_class_label_of_minus_one_is_none(store):
    names = {"info": {"features": {"label": {"names": ["good", "crack"], "_type": "ClassLabel"}}}}
    metadata = {"huggingface": json.dumps(names)}
    uri = store(image=[picture(n) for n in range(3)], label=[-1, 0, 1], metadata=metadata)
    assert [row["label"] for row in list_images([uri])] == [None, "good", "crack"]


PEAK = """
import resource, sys
from ganad.archive.listing import list_images
from ganad.archive.parquets import read_cells
rows = list(list_images([sys.argv[1]]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
sizes = [len(data) for _, data in read_cells(sys.argv[1], rows[0]["column"], range(16))]
print(len(rows), len(sizes), sizes[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("nested", [False, True])
def test_a_small_file_of_large_cells_does_not_fill_the_memory(tmp_path, nested):
    """One value of 32 MB in a dictionary stood for sixteen cells at a time."""
    blob, path = b"\0" * 2**25, tmp_path / "bomb.parquet"
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 64, pa.int32()), pa.array([blob]))
    if nested:
        column = pa.StructArray.from_arrays([column], ["bytes"])
    pq.write_table(pa.table({"image": column}), path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 10_000
    said = subprocess.check_output([sys.executable, "-c", PEAK, str(path)], text=True)
    num, num_read, size, kilobytes = map(int, said.split())
    assert (num, num_read, size) == (64, 16, 2**25)
    assert kilobytes < 16 * 2**15  # fewer than the sixteen cells: 512 MiB


def test_names_that_are_whole_files_are_refused(tmp_path):
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 9, pa.int32()), pa.array(["x" * 10**6]))
    table = pa.table({"image": [picture(1)] * 9, "name": texts})
    pq.write_table(table, tmp_path / "a.parquet", store_schema=False)
    with pytest.raises(ArchiveError, match="column name holds a text of 1,000,000 bytes"):
        list(list_images([str(tmp_path / "a.parquet")]))


def test_a_damaged_file_does_not_stop_the_others(tmp_path):
    for number in range(3):
        table = pa.table({"image": [picture(number)], "label": ["good"]})
        pq.write_table(table, tmp_path / f"{number}.parquet")
    (tmp_path / "1.parquet").write_bytes(b"PAR1 is not all of it")
    manifest = write_manifest([f"{tmp_path}/*.parquet"], str(tmp_path / "manifest"))
    errors = {row["name"]: row["error"] for row in manifest.table().to_pylist()}
    assert errors == {
        "0.parquet#0": None,
        "1.parquet": "is damaged or not a Parquet file; make the file again",
        "2.parquet#0": None,
    }
    assert manifest.num_damaged == 1


def test_a_file_that_is_no_parquet(store, tmp_path):
    uri = store(image=[picture(1)])
    storage.write_bytes(uri, b"PAR1 but not really PAR1")
    with pytest.raises(ArchiveError, match=r"images\.parquet: is damaged or not a Parquet file"):
        list(list_images([uri]))


def test_a_file_that_is_damaged_after_it_was_listed(store):
    uri = store(image=[np.random.default_rng(n).bytes(5000) for n in range(9)])
    rows = list(list_images([uri]))
    data = bytearray(storage.read_bytes(uri))
    data[8_000:30_000] = bytes(22_000)  # in the first two of three groups
    storage.write_bytes(uri, bytes(data))
    errors = [one.error for (one,) in load_images(rows, [GREY])]
    assert errors.count("cannot be fetched: the Parquet file is damaged") >= 3
    storage.write_bytes(uri, b"short")
    errors = {one.error for (one,) in load_images(rows, [GREY])}
    assert errors == {"cannot be fetched: the Parquet file is damaged"}
    storage.remove(uri)
    (error,) = {one.error for (one,) in load_images(rows, [GREY])}
    assert error.startswith("cannot be fetched: there is no such")


def test_a_file_that_became_shorter(store):
    uri = store(image=[picture(n) for n in range(6)])
    rows = list(list_images([uri]))
    assert store(image=[picture(9)] * 4) == uri
    loaded = [one for (one,) in load_images(rows, [GREY])]
    assert [one.error for one in loaded[:4]] == [None] * 4
    assert {one.error for one in loaded[4:]} == {"the file has no such row any more"}


def test_only_the_groups_asked_for_are_read(store, monkeypatch):
    uri = store(image=[picture(n) for n in range(30)], row_group_size=10)
    asked = []
    batches = pq.ParquetFile.iter_batches

    def watch(self, *arguments, row_groups, **options):
        asked.extend(row_groups)
        return batches(self, *arguments, row_groups=row_groups, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", watch)
    found = dict(read_cells(uri, "image", [25, 3, 29]))
    assert found == {n: picture(n) for n in (3, 25, 29)}
    assert asked == [0, 2]


@pytest.mark.parametrize(
    "options",
    [{"row_group_size": 20}, {"write_batch_size": 8, "use_dictionary": False}],
    ids=["small groups", "small pages in one group"],
)
def test_a_file_is_never_held_whole(options, tmp_path):
    rng = np.random.default_rng(0)
    path = str(tmp_path / "large.parquet")
    pq.write_table(pa.table({"image": [rng.bytes(400_000) for _ in range(200)]}), path, **options)
    pool = pa.default_memory_pool()
    before, most = pool.bytes_allocated(), 0
    assert len(list(list_images([path]))) == 200
    for _ in read_cells(path, "image", range(200)):
        most = max(most, pool.bytes_allocated() - before)
    assert most < 200 * 400_000 / 3


def test_large_groups_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr("ganad.archive.listing.LARGE_GROUP", 100)
    path = str(tmp_path / "x.parquet")
    pq.write_table(pa.table({"image": [picture(1)] * 9}), path)
    (note,) = write_manifest([path], str(tmp_path / "manifest")).notes
    assert "row_group_size=1000" in note


def test_a_transient_failure_reads_the_rest_again(store, monkeypatch):
    uri = store(image=[picture(n) for n in range(9)])
    rows = list(list_images([uri]))
    monkeypatch.setattr(patience, "WAIT", wait_none())
    asked = []

    def breaking(uri, column, wanted):
        asked.append(list(wanted))
        for number, cell in enumerate(read_cells(uri, column, wanted)):
            if number == 4 and len(asked) == 1:
                raise ConnectionResetError
            yield cell

    monkeypatch.setattr(load, "read_cells", breaking)
    assert values(rows) == list(range(9))
    assert asked == [list(range(9)), list(range(4, 9))]


def test_an_outage_is_no_error_of_the_images(store, monkeypatch):
    uri = store(image=[picture(1)])
    rows = list(list_images([uri]))
    monkeypatch.setattr(patience, "WAIT", wait_none())
    monkeypatch.setattr(patience, "answers", lambda uri: False)

    def gone(*_):
        raise ConnectionResetError
        yield

    monkeypatch.setattr(load, "read_cells", gone)
    with pytest.raises(Outage, match=r"parquet: the connection failed .* has not answered for"):
        load_images(rows, [GREY], patience_s=0.01)


def test_a_folder_names_its_parquet_files_by_a_glob(tmp_path):
    pq.write_table(pa.table({"image": [picture(1)]}), tmp_path / "x.parquet")
    with pytest.raises(ArchiveError, match=r"but \.parquet files; name them with '.*\*\.parquet'"):
        list(list_images([str(tmp_path)]))


def test_folders_tars_and_parquet_in_one_listing(tmp_path):
    (tmp_path / "loose").mkdir()
    (tmp_path / "loose" / "1.png").write_bytes(picture(1))
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        info = tarfile.TarInfo("2.png")
        info.size = len(picture(2))
        tar.addfile(info, io.BytesIO(picture(2)))
    pq.write_table(pa.table({"image": [picture(3), picture(4)]}), tmp_path / "x.parquet")
    pq.write_table(pa.table({"note": ["no images"]}), tmp_path / "facts.parquet")
    manifest = write_manifest([f"{tmp_path}/*"], str(tmp_path / "manifest"))
    rows = manifest.table().to_pylist()
    assert [row["name"] for row in rows] == [
        "loose/1.png",
        "shard.tar#2.png",
        "x.parquet#0",
        "x.parquet#1",
    ]
    assert manifest.num_skipped == 1
    assert values(rows[::-1]) == [4, 3, 2, 1]
    assert parquets.is_parquet("X.PARQUET")
