"""Local files and S3 through the same functions, and failures in words."""

import os
import pickle
import time

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from ganad.errors import ArchiveError
from ganad.storage import files as storage
from ganad.storage import s3 as s3_storage


@pytest.fixture(params=["local", "s3"])
def base(request, tmp_path):
    """A place to write to."""
    if request.param == "local":
        return str(tmp_path / "a" / "b")
    s3 = request.getfixturevalue("s3")
    (s3.root / "storage").mkdir(exist_ok=True)
    return s3.url(f"storage/{tmp_path.name}")


def test_bytes_come_back(base):
    uri = storage.join(base, "deep", "x.bin")
    storage.write_bytes(uri, b"0123456789")
    assert storage.read_bytes(uri) == b"0123456789"
    assert storage.read_bytes(uri, 2, 3) == b"234"
    assert storage.read_bytes(uri, 7) == b"789"
    assert storage.read_bytes(uri, 8, 100) == b"89"
    assert storage.read_bytes(uri, 4, 0) == b""
    assert storage.size_of(uri) == 10


def test_an_empty_file_is_read_and_written(base):
    uri = storage.join(base, "empty")
    storage.write_bytes(uri, b"")
    assert storage.read_bytes(uri) == b""
    assert storage.size_of(uri) == 0


def test_names_that_mean_something_elsewhere(base):
    names = ["a b.png", "50%.png", "a#b?c.png", "ä.png", "[x]*.png", "q'\"&<.png"]
    for name in names:
        storage.write_bytes(storage.join(base, name), name.encode())
    assert storage.list_names(base) == sorted(names)
    for name in names:
        assert storage.read_bytes(storage.join(base, name)) == name.encode()


def test_writing_replaces_and_leaves_nothing_else(base):
    uri = storage.join(base, "x.json")
    storage.write_json(uri, {"a": 1})
    storage.write_json(uri, {"ä": [None, 2]})
    assert storage.read_json(uri) == {"ä": [None, 2]}
    assert storage.list_names(base) == ["x.json"]


def test_a_table_comes_back_with_the_options_it_was_written_with(base):
    uri, table = storage.join(base, "x.parquet"), pa.table({"a": list(range(10))})
    storage.write_table(uri, table, row_group_size=4)
    assert storage.read_table(uri, filters=pc.field("a") > 7)["a"].to_pylist() == [8, 9]
    with storage.open_input(uri) as file:
        metadata = pq.ParquetFile(file).metadata
    assert metadata.num_row_groups == 3
    assert metadata.row_group(0).column(0).compression == "ZSTD"
    assert storage.list_names(base) == ["x.parquet"]


def test_exists_lists_and_removes(base):
    assert not storage.exists(base)
    assert storage.list_names(base) == []
    storage.write_bytes(storage.join(base, "f"), b"1")
    storage.write_bytes(storage.join(base, "sub", "g"), b"22")
    assert storage.exists(base)
    assert storage.exists(storage.join(base, "sub"))
    assert storage.list_names(base) == ["f", "sub"]
    assert storage.list_folders(base) == ["sub"]
    storage.remove(storage.join(base, "f"))
    storage.remove(storage.join(base, "f"))
    assert storage.list_names(base) == ["sub"]
    assert not storage.exists(storage.join(base, "f"))
    assert storage.size_of(storage.join(base, "sub")) is None


def test_arrow_reads_and_writes_there(base):
    table = pa.table({"a": [1, 2, 3]})
    uri = storage.join(base, "x.parquet")
    storage.write_bytes(uri, b"")
    filesystem, path = storage.arrow_filesystem(uri)
    pq.write_table(table, path, filesystem=filesystem)
    again = pickle.loads(pickle.dumps(filesystem))
    assert pq.read_table(path, filesystem=again) == table


def test_no_secret_is_pickled(s3):
    pickled = pickle.dumps(storage.arrow_filesystem("s3://bucket/x")[0])
    assert os.environ["AWS_SECRET_ACCESS_KEY"].encode() not in pickled
    assert os.environ["AWS_ACCESS_KEY_ID"].encode() not in pickled


def test_a_missing_file_is_an_archive_error(base):
    uri = storage.join(base, "none.json")
    for read in (storage.read_bytes, storage.read_json):
        with pytest.raises(ArchiveError, match="there is no such") as caught:
            read(uri)
        assert str(caught.value).startswith(uri)


def test_text_that_is_no_json(base):
    uri = storage.join(base, "x.json")
    storage.write_bytes(uri, b"{]")
    with pytest.raises(ArchiveError, match=r"x\.json: is not JSON"):
        storage.read_json(uri)


def test_a_failed_write_leaves_nothing(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(ArchiveError, match="folder: "):
        storage.write_bytes(str(tmp_path / "folder"), b"data")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    assert storage.absolute("x/../y/") == str(tmp_path / "y")
    assert storage.absolute("~/x") == "/home/someone/x"
    assert storage.absolute("file:///data/x") == "/data/x"
    assert storage.absolute("s3://bucket/a/") == "s3://bucket/a"
    for other in ("gs://bucket/a", "https://host/x.png", "s3://"):
        with pytest.raises(ArchiveError, match="^" + other):
            storage.absolute(other)


@pytest.mark.parametrize("empty", ["", " ", "\t"])
def test_an_empty_path_is_not_the_current_folder(empty):
    with pytest.raises(ArchiveError, match="is an empty path: name a file"):
        storage.absolute(empty)


def test_a_path_with_a_null_byte_is_refused():
    with pytest.raises(ArchiveError, match=r"^'a\\x00b': no file has a null byte in its name"):
        storage.absolute("a\0b")


def test_a_path_that_is_not_utf8_is_refused_with_escapes():
    with pytest.raises(ArchiveError, match=r"^bad\\xff: the name is not UTF-8; rename it"):
        storage.absolute("bad\udcff")


@pytest.mark.parametrize("read", [storage.read_bytes, storage.read_json, storage.read_table])
def test_what_is_not_a_regular_file_is_not_read(tmp_path, read):
    """A pipe would be waited for without end, /dev/zero read until the memory is full."""
    os.mkfifo(tmp_path / "pipe")
    for uri in (str(tmp_path / "pipe"), "/dev/zero", str(tmp_path)):
        with pytest.raises(ArchiveError, match="is not a regular file"):
            read(uri)


def test_json_nested_without_end(tmp_path):
    (tmp_path / "x.json").write_bytes(b"[" * 200_000)
    with pytest.raises(ArchiveError, match=r"x\.json: is not JSON"):
        storage.read_json(str(tmp_path / "x.json"))


def test_scratch_lies_beside_local_results_and_is_removed(tmp_path):
    with storage.scratch_folder(str(tmp_path / "out"), ".mine-") as folder:
        assert folder.parent == tmp_path / "out"
        (folder / "x").touch()
    assert not folder.exists()
    with storage.scratch_folder("s3://bucket/out", ".mine-") as folder:
        assert folder.is_dir()


def test_pages_are_asked_for_one_by_one(s3):
    for number in range(7):
        s3.put(f"paged/some/{number}.png", b"x")
    s3.put("paged/some/sub/7.png", b"x")
    s3.put("paged/something/8.png", b"x")
    pages = [[key for key, _ in files] for files, _ in s3_storage.pages("s3://paged/some", keys=3)]
    assert [len(page) for page in pages] == [3, 3, 2]
    assert pages[2] == ["some/6.png", "some/sub/7.png"]
    flat = [folders for _, folders in s3_storage.pages("s3://paged/some", flat=False, keys=3)]
    assert sum(flat, []) == ["some/sub"]


def test_without_credentials(s3, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ArchiveError, match=r"^s3://b/x: no AWS credentials were found; set AWS_"):
        storage.read_bytes("s3://b/x")


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_with_wrong_credentials(s3, monkeypatch, name):
    monkeypatch.setenv(name, "confidential")
    s3.put("private/x", b"1")
    with pytest.raises(
        ArchiveError, match=r"^s3://private/x: the AWS credentials were refused"
    ) as e:
        storage.list_names("s3://private/x")
    assert "confidential" not in str(e.value)


def test_no_such_bucket(s3):
    with pytest.raises(ArchiveError, match=r"^s3://nowhere/x: there is no such bucket; check"):
        storage.list_names("s3://nowhere/x")


def test_a_dead_endpoint_is_told_within_seconds(s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(
        ArchiveError, match=r"^s3://b/x: cannot connect to 127\.0\.0\.1:9"
    ) as caught:
        storage.read_bytes("s3://b/x")
    assert time.monotonic() - began < 15
    assert "AWS_ENDPOINT_URL" in str(caught.value)


def test_what_is_no_bucket_name(s3):
    with pytest.raises(ArchiveError, match=r"^s3://B\^d/x: is not a valid S3 address"):
        storage.list_names("s3://B^d/x")


def test_keys_in_an_address_are_refused_unrepeated():
    with pytest.raises(ArchiveError, match="^s3://…@bucket/x: keys in an address") as caught:
        storage.absolute("s3://AKIAFAKE:hushhush@bucket/x")
    assert "hush" not in str(caught.value)
    assert storage.absolute("s3://bucket/a@b.png") == "s3://bucket/a@b.png"
