"""Manifests: written whole or not at all, read in part, replaced safely."""

import json
import re

import numpy as np
import pyarrow.parquet as pq
import pytest

from ganad.archive import parts
from ganad.archive.manifest import SCHEMA, is_manifest, open_manifest, read_rows, write_manifest
from ganad.errors import ArchiveError, ConfigError, ManifestError, Mismatch
from ganad.storage import files as storage


def names(manifest):
    return manifest.table(["name"])["name"].to_pylist()


def test_what_is_written_is_read(image_folder, out):
    seen = []
    manifest = write_manifest([str(image_folder)], out, progress=seen.append)
    assert manifest == open_manifest(out)
    assert is_manifest(out)
    assert manifest.uri == out
    assert manifest.sources == (str(image_folder),)
    assert manifest.num_images == 56
    assert manifest.labels == {"crack": 8, "good": 48}
    assert (manifest.num_normal, manifest.num_abnormal) == (48, 8)
    assert (manifest.merged, manifest.num_skipped, manifest.notes) == (0, 0, ())
    assert seen == [56]
    assert manifest.table().schema == SCHEMA
    assert manifest.table().num_rows == 56
    assert len(storage.list_names(out)) == 2
    assert re.fullmatch(r"part-00000-[0-9a-f]{16}\.parquet", storage.list_names(out)[1])


def test_parts_and_row_groups(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "ROWS_PER_PART", 8)
    monkeypatch.setattr(parts, "ROWS_PER_GROUP", 3)
    source = photos(*(f"{number:02d}.png" for number in range(20)))
    manifest = write_manifest([source], str(tmp_path / "out"))
    assert [part.num_rows for part in manifest.parts] == [8, 8, 4]
    assert [part.uri.rpartition("/")[2][:10] for part in manifest.parts] == [
        f"part-0000{number}" for number in range(3)
    ]
    assert pq.ParquetFile(manifest.parts[0].uri).num_row_groups == 3
    for start, num in [(0, 8), (2, 3), (0, 1), (7, 5), (3, 3), (6, 2)]:
        wanted = [f"{number:02d}.png" for number in range(8, 16)][start : start + num]
        assert [row["name"] for row in manifest.rows(manifest.parts[1], start, num)] == wanted
    assert names(manifest) == [f"{number:02d}.png" for number in range(20)]
    assert read_rows(manifest.parts[2].uri, 9, 3) == []


def test_only_the_row_groups_asked_for_are_read(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "ROWS_PER_GROUP", 10)
    manifest = write_manifest(
        [photos(*(f"{number}.png" for number in range(100)))], str(tmp_path / "out")
    )
    asked = []
    read = pq.ParquetFile.read_row_groups
    monkeypatch.setattr(
        pq.ParquetFile,
        "read_row_groups",
        lambda self, groups, *rest: asked.append(groups) or read(self, groups, *rest),
    )
    assert len(manifest.rows(manifest.parts[0], 25, 10)) == 10
    assert asked == [[2, 3]]


def test_the_digest_is_of_the_images(photos, tmp_path, monkeypatch):
    source = photos("a/1.png", "b/2.png")
    first = write_manifest([source], str(tmp_path / "1"))
    assert write_manifest([source], str(tmp_path / "2")).digest == first.digest
    monkeypatch.setattr(parts, "ROWS_PER_PART", 1)
    assert write_manifest([source], str(tmp_path / "3")).digest == first.digest
    digests = {first.digest}
    digests.add(write_manifest([source], str(tmp_path / "4"), normal=["a"]).digest)
    (tmp_path / "photos" / "a" / "1.png").write_bytes(b"longer")
    digests.add(write_manifest([source], str(tmp_path / "5")).digest)
    photos("a/3.png")
    digests.add(write_manifest([source], str(tmp_path / "6")).digest)
    assert len(digests) == 4


def test_an_image_listed_twice_is_one_row(photos, tmp_path):
    source = photos("a/1.png", "b/2.png", "c.png")
    sources = [source, f"{source}/c.png", source, f"{source}/*/2.png"]
    manifest = write_manifest(sources, str(tmp_path / "out"))
    assert names(manifest) == ["a/1.png", "b/2.png", "c.png"]
    assert manifest.merged == 5
    assert manifest.labels == {"a": 1, "b": 1}


def test_an_unlabelled_copy_takes_the_label_of_the_other(photos, tmp_path):
    source = photos("a/1.png", "a/2.png")
    manifest = write_manifest([f"{source}/a", source], str(tmp_path / "out"))
    assert manifest.labels == {"a": 2}
    assert names(manifest) == ["1.png", "2.png"]


def test_one_image_with_two_labels_is_refused(photos, tmp_path):
    source = photos("x/y/1.png", "x/2.png")
    with pytest.raises(ArchiveError) as caught:
        write_manifest([source, f"{source}/x"], str(tmp_path / "out"))
    assert str(caught.value).startswith(f"{source}: its image x/y/1.png is 'x' here and 'y' as")
    assert not (tmp_path / "out").exists()


def test_several_sources_keep_their_order(photos, tmp_path):
    first, second = photos("2.png", folder="one"), photos("1.png", folder="two")
    manifest = write_manifest([second, first], str(tmp_path / "out"))
    assert names(manifest) == ["1.png", "2.png"]
    assert manifest.sources == (second, first)


def test_what_is_no_image_is_counted_over_all_sources(photos, tmp_path):
    first = photos("2.png", "a.txt", folder="one")
    second = photos("1.png", "b.txt", "c", folder="two")
    assert write_manifest([first, second], str(tmp_path / "out")).num_skipped == 3


def test_a_manifest_is_replaced_by_one_of_the_same_sources(photos, out):
    source = photos("1.png")
    write_manifest([source], out)
    photos("2.png")
    manifest = write_manifest([source], out)
    assert names(manifest) == ["1.png", "2.png"]
    assert len(storage.list_names(out)) == 2
    photos("3.png")
    assert len(names(write_manifest([source], out))) == 3
    assert len(storage.list_names(out)) == 2


def test_the_old_manifest_holds_until_the_new_one_is_whole(photos, out):
    source = photos("1.png")
    before = write_manifest([source], out)
    photos("2.png")
    with pytest.raises(ConfigError):
        write_manifest([source], out, normal=["nothing has this"])
    assert open_manifest(out) == before
    assert names(before) == ["1.png"]
    assert len(storage.list_names(out)) == 2


def test_a_manifest_of_other_sources_is_kept(photos, out):
    write_manifest([photos("1.png", folder="one")], out)
    with pytest.raises(
        Mismatch, match=r"manifest: holds a manifest of /.*/one; name another folder"
    ):
        write_manifest([photos("1.png", folder="two")], out)


def test_a_folder_with_other_files_is_left_alone(photos, out):
    storage.write_bytes(storage.join(out, "thesis.txt"), b"x")
    with pytest.raises(ManifestError, match=r"holds other files \(thesis\.txt\) and no manifest"):
        write_manifest([photos("1.png")], out)
    assert storage.list_names(out) == ["thesis.txt"]


def test_other_files_beside_a_manifest_are_left_alone(photos, out):
    source = photos("1.png")
    write_manifest([source], out)
    for name in (".env", ".notes.deadbeef", "README.txt"):
        storage.write_bytes(storage.join(out, name), b"x")
    write_manifest([source], out)
    assert {".env", ".notes.deadbeef", "README.txt"} < set(storage.list_names(out))


def test_out_is_a_file(photos, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ManifestError, match="is a file; name a folder"):
        write_manifest([photos("1.png")], str(tmp_path / "file"))


def test_an_unfinished_manifest(photos, out):
    source = photos("1.png")
    write_manifest([source], out)
    storage.remove(storage.join(out, "manifest.json"))
    assert not is_manifest(out)
    with pytest.raises(ManifestError, match=r"manifest: indexing did not finish; run the same"):
        open_manifest(out)
    # Running it again needs no cleaning up, not even of a merge that was cut off.
    if not storage.is_remote(out):
        storage.write_bytes(storage.join(out, ".ganad-merge-abc", "merge.duckdb"), b"junk")
        storage.write_bytes(storage.join(out, ".part-00000.parquet.01234567"), b"junk")
    assert names(write_manifest([source], out)) == ["1.png"]
    assert len(storage.list_names(out)) == 2


def test_what_is_no_manifest(out, photos):
    with pytest.raises(
        ManifestError, match="manifest: is not a manifest; make one with ganad index"
    ):
        open_manifest(out)
    assert not is_manifest(out)
    storage.write_json(storage.join(out, "manifest.json"), {"name": "my web app"})
    assert not is_manifest(out)
    with pytest.raises(ManifestError, match=r"its manifest\.json is not ganad's or is damaged"):
        open_manifest(out)
    storage.write_bytes(storage.join(out, "manifest.json"), b"{")
    assert not is_manifest(out)


def test_any_changed_byte_of_a_part_is_noticed(photos, tmp_path):
    """Parquet alone does not notice all of them, and gives other rows."""
    manifest = write_manifest([photos("a/1.png", "b/2.png")], str(tmp_path / "out"))
    (part,) = manifest.parts
    whole = storage.read_bytes(part.uri)
    for place in range(0, len(whole), 29):
        parts._verified.cache_clear()
        data = bytearray(whole)
        data[place] ^= 1
        storage.write_bytes(part.uri, bytes(data))
        for read in (manifest.table, lambda: manifest.rows(part, 0, 1)):
            with pytest.raises(ManifestError, match="is damaged; run ganad index again"):
                read()


def test_any_changed_byte_of_the_json_is_noticed(photos, tmp_path):
    manifest = write_manifest([photos("a/1.png", "b/2.png")], str(tmp_path / "out"))
    place = tmp_path / "out" / "manifest.json"
    whole = place.read_bytes()
    for position in range(len(whole)):
        data = bytearray(whole)
        data[position] ^= 1 << position % 7
        place.write_bytes(data)
        try:
            found = open_manifest(str(tmp_path / "out"))
        except ManifestError as error:
            message = str(error)
            assert "\n" not in message
            assert "ganad index" in message
        else:
            assert found == manifest


@pytest.mark.parametrize(
    "change",
    [
        lambda info: info.pop("parts"),
        lambda info: info.update(digest=None),
        lambda info: info.update(images=-1),
        lambda info: info.update(images=2),
        lambda info: info.update(labels={"a": "many"}),
        lambda info: info.update(parts=[["../../etc/passwd", 1]]),
        lambda info: info.update(parts=[["part-00000.parquet"]]),
        lambda info: info.update(sources="x"),
        lambda info: info.update(normal=10**30),
    ],
)
def test_a_manifest_of_before_checksums_that_makes_no_sense(photos, tmp_path, change):
    write_manifest([photos("a/1.png")], str(tmp_path / "out"))
    place = tmp_path / "out" / "manifest.json"
    info = {**json.loads(place.read_text()), "format": "ganad manifest 1"}
    del info["checksum"]
    place.write_text(json.dumps(info))
    assert open_manifest(str(tmp_path / "out")).num_images == 1
    change(info)
    place.write_text(json.dumps(info))
    with pytest.raises(ManifestError, match=r"is damaged \(.*\); make it again with ganad index"):
        open_manifest(str(tmp_path / "out"))


def test_a_damaged_manifest_is_made_again_by_the_remedy_it_names(photos, out):
    source = photos("1.png")
    write_manifest([source], out)
    place = storage.join(out, "manifest.json")
    storage.write_bytes(place, storage.read_bytes(place)[:100] + b"[" * 200_000)
    assert is_manifest(out)
    with pytest.raises(ManifestError, match=r"is damaged \(.*; make it again with ganad index"):
        open_manifest(out)
    with pytest.raises(ManifestError, match="is damaged"):
        write_manifest([source], out, refresh=True)
    assert names(write_manifest([source], out)) == ["1.png"]
    assert len(storage.list_names(out)) == 2


def test_a_part_from_before_digests_is_read(photos, tmp_path):
    """And from before there was a column for errors."""
    manifest = write_manifest([photos("a/1.png")], str(tmp_path / "out"))
    old = str(tmp_path / "out" / "part-00000.parquet")
    storage.write_table(old, manifest.table().drop_columns(["error"]))
    assert parts.read_table(old) == manifest.table()
    assert parts.read_rows(old, 0, 1)[0]["name"] == "a/1.png"
    assert parts.num_rows(old) == 1


def test_a_folder_whose_name_has_a_quote_in_it(photos, tmp_path):
    source = photos("1.png")
    manifest = write_manifest([source, f"{source}/1.png"], str(tmp_path / "it's" / "m"))
    assert names(manifest) == ["1.png"]


def test_a_damaged_part(photos, tmp_path):
    manifest = write_manifest([photos("1.png")], str(tmp_path / "out"))
    with open(manifest.parts[0].uri, "r+b") as file:
        file.truncate(100)
    with pytest.raises(ManifestError, match=r"part-00000-.*\.parquet: is damaged"):
        manifest.table()


def test_a_missing_part(photos, tmp_path):
    manifest = write_manifest([photos("1.png")], str(tmp_path / "out"))
    storage.remove(manifest.parts[0].uri)
    with pytest.raises(ArchiveError, match=r"part-00000-.*\.parquet: there is no such file"):
        manifest.rows(manifest.parts[0], 0, 1)


def test_a_failed_index_leaves_nothing(tmp_path, out):
    for sources in ([str(tmp_path / "none")], [str(tmp_path / "none"), str(tmp_path / "nor")]):
        with pytest.raises(ArchiveError, match="none: there is no such"):
            write_manifest(sources, out)
    assert not storage.exists(out)


def test_without_sources(tmp_path):
    with pytest.raises(ConfigError, match="no source was given"):
        write_manifest([], str(tmp_path / "out"))


def test_a_manifest_as_a_source_of_another(photos, tmp_path):
    write_manifest([photos("1.png")], str(tmp_path / "out"))
    with pytest.raises(ArchiveError, match="out: holds a manifest, not images"):
        write_manifest([str(tmp_path / "out")], str(tmp_path / "out2"))


def test_a_manifest_may_be_moved(photos, tmp_path):
    manifest = write_manifest([photos("1.png")], str(tmp_path / "out"))
    (tmp_path / "out").rename(tmp_path / "moved")
    moved = open_manifest(str(tmp_path / "moved"))
    assert names(moved) == ["1.png"]
    assert moved.digest == manifest.digest


def test_the_json_is_for_people_too(photos, tmp_path):
    write_manifest([photos("a/1.png")], str(tmp_path / "out"))
    info = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert info["images"] == 1
    assert info["labels"] == {"a": 1}


def test_parts_are_written_while_the_listing_goes_on(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "ROWS_PER_PART", 10)
    monkeypatch.setattr(parts, "ROWS_PER_GROUP", 5)
    source = photos(*(f"{number:02d}.png" for number in range(40)))
    written = []
    write = storage.write_bytes

    def watch(uri, data):
        written.append((uri.rpartition("/")[2], len(listed)))
        write(uri, data)

    listed = []
    batches_of = parts.batches_of
    monkeypatch.setattr(storage, "write_bytes", watch)
    monkeypatch.setattr(
        "ganad.archive.manifest.batches_of",
        lambda rows: batches_of(listed.append(row) or row for row in rows),
    )
    write_manifest([source], str(tmp_path / "out"))
    assert [when for name, when in written if name.startswith("part")] == [10, 20, 30, 40]
    assert np.diff([when for _, when in written]).tolist() == [10, 10, 10, 0]
