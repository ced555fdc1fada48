"""A manifest that is refreshed: what is listed stays, what is new comes after it, once."""

import io
import tarfile

import pytest

from ganad.archive.manifest import is_manifest, open_manifest, write_manifest
from ganad.errors import ArchiveError, Mismatch
from ganad.storage import files as storage


def names(manifest):
    return manifest.table(["name"])["name"].to_pylist()


def test_new_images_come_in_new_parts(photos, out):
    source = photos("b.png", "d.png")
    first = write_manifest([source], out)
    photos("a.png", "c.png")
    second = write_manifest([source], out, refresh=True)
    assert second == open_manifest(out)
    assert names(second) == ["b.png", "d.png", "a.png", "c.png"]
    assert second.parts[: len(first.parts)] == first.parts
    assert second.earlier == (first.digest,)
    photos("e.png")
    third = write_manifest([source], out, refresh=True)
    assert names(third) == ["b.png", "d.png", "a.png", "c.png", "e.png"]
    assert third.earlier == (first.digest, second.digest)
    assert len(storage.list_names(out)) == 4


def test_the_id_stays_for_as_long_as_the_first_images_do(photos, out):
    source = photos("b.png")
    first = write_manifest([source], out)
    assert write_manifest([source], out).id == first.id  # the same images, listed again
    photos("c.png")
    assert write_manifest([source], out, refresh=True).id == first.id
    photos("a.png")
    assert write_manifest([source], out).id != first.id


def test_nothing_new_changes_nothing(photos, out):
    source = photos("1.png", "2.png")
    first = write_manifest([source], out)
    assert write_manifest([source], out, refresh=True) == first


def test_refreshing_what_is_not_there_yet_lists_it(photos, out):
    manifest = write_manifest([photos("1.png")], out, refresh=True)
    assert names(manifest) == ["1.png"]
    assert manifest.earlier == ()


def test_the_digest_is_that_of_the_rows_however_they_came(photos, tmp_path):
    source = photos("1.png")
    write_manifest([source], str(tmp_path / "grown"))
    photos("2.png")
    grown = write_manifest([source], str(tmp_path / "grown"), refresh=True)
    assert grown.digest == write_manifest([source], str(tmp_path / "fresh")).digest


def test_counts_go_on(photos, tmp_path):
    source = photos("good/1.png", "crack/2.png")
    write_manifest([source], str(tmp_path / "out"))
    photos("good/0.png", "dent/3.png")
    manifest = write_manifest([source], str(tmp_path / "out"), refresh=True)
    assert manifest.labels == {"crack": 1, "dent": 1, "good": 2}
    assert (manifest.num_normal, manifest.num_abnormal) == (2, 2)


def test_new_images_are_labelled_as_the_first(photos, tmp_path):
    source = photos("a/1.png", "b/2.png")
    write_manifest([source], str(tmp_path / "out"), abnormal=["b"])
    photos("b/3.png")
    manifest = write_manifest([source], str(tmp_path / "out"), refresh=True)
    assert manifest.num_abnormal == 2
    with pytest.raises(
        Mismatch, match=r"made with abnormal \['b'\], now it is \['a'\]; leave it out"
    ):
        write_manifest([source], str(tmp_path / "out"), abnormal=["a"], refresh=True)


def test_a_csv_is_read_again(photos, tmp_path):
    source, csv = photos("1.png"), tmp_path / "labels.csv"
    csv.write_text("path,label\n1.png,good\n")
    write_manifest([source], str(tmp_path / "out"), labels=str(csv))
    photos("2.png")
    csv.write_text("path,label\n1.png,good\n2.png,crack\n")
    manifest = write_manifest([source], str(tmp_path / "out"), refresh=True)
    assert manifest.labels == {"good": 1, "crack": 1}
    assert manifest.num_abnormal == 1


def test_images_that_went_or_changed_are_told(photos, tmp_path):
    source = photos("1.png", "2.png", "3.png")
    write_manifest([source], str(tmp_path / "out"))
    (tmp_path / "photos" / "1.png").unlink()
    (tmp_path / "photos" / "2.png").write_bytes(b"longer")
    manifest = write_manifest([source], str(tmp_path / "out"), refresh=True)
    assert names(manifest) == ["1.png", "2.png", "3.png"]
    gone, changed = manifest.notes
    assert gone.startswith("1 of the images listed before are gone")
    assert changed.startswith("1 of the images listed before have changed, the first 2.png")


def test_a_shard_that_was_appended_to(tmp_path):
    shard = str(tmp_path / "shard.tar")

    def add(mode, *members):
        with tarfile.open(shard, mode) as tar:
            for name, data in members:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))

    add("w", ("a.png", b"1"), ("b.png", b"22"))
    first = write_manifest([shard], str(tmp_path / "out"))
    add("a", ("c.png", b"333"))
    manifest = write_manifest([shard], str(tmp_path / "out"), refresh=True)
    assert manifest.parts[0] == first.parts[0]
    assert manifest.table()["member"].to_pylist() == ["a.png", "b.png", "c.png"]
    assert manifest.notes == ()


def test_a_refresh_that_fails_leaves_the_manifest_as_it_was(photos, out, tmp_path, monkeypatch):
    source = photos("1.png")
    first = write_manifest([source], out)
    photos("2.png")

    def fail(uri, value):
        raise ArchiveError(f"{uri}: the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_json", fail)
        with pytest.raises(ArchiveError, match="disk is full"):
            write_manifest([source], out, refresh=True)
    assert open_manifest(out) == first
    # What a killed refresh left is cleared away by the next.
    assert names(write_manifest([source], out, refresh=True)) == ["1.png", "2.png"]
    assert len(storage.list_names(out)) == 3


def test_other_sources_are_refused(photos, tmp_path):
    write_manifest([photos("1.png", folder="one")], str(tmp_path / "out"))
    with pytest.raises(Mismatch, match="holds a manifest of"):
        write_manifest([photos("1.png", folder="two")], str(tmp_path / "out"), refresh=True)
    assert is_manifest(str(tmp_path / "out"))
