"""A listing whose parts are in use before its end: what was announced stays, whatever happens."""

import io
import tarfile

import pytest

from ganad.archive import manifest as manifest_module
from ganad.archive import parts
from ganad.archive.manifest import is_manifest, open_manifest, write_manifest
from ganad.archive.unfinished import NAME
from ganad.errors import ArchiveError, ManifestError, Mismatch
from ganad.storage import files as storage


class Killed(BaseException):
    """What no code below expects."""


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(parts, "ROWS_PER_PART", 3)
    monkeypatch.setattr(parts, "ROWS_PER_GROUP", 1)
    monkeypatch.setattr(manifest_module, "ROWS_PER_GROUP", 1)  # progress after every image


def names(manifest):
    return manifest.table(["name"])["name"].to_pylist()


def cut_off(source, out, after, **options):
    """List until so many parts are announced and no further; returns the announced parts."""
    seen = []

    def on_part(part):
        seen.append(part)
        if len(seen) == after:
            raise Killed

    with pytest.raises(Killed):
        write_manifest([source], out, refresh=True, on_part=on_part, **options)
    return seen


def test_parts_are_announced_while_the_listing_goes_on(photos, out):
    source = photos(*(f"{number}.png" for number in range(8)))
    told, listed = [], []

    def on_part(part):
        told.append((part, parts.num_rows(part.uri), len(listed)))
        assert not is_manifest(out)

    manifest = write_manifest([source], out, on_part=on_part, progress=listed.append)
    assert tuple(part for part, _, _ in told) == manifest.parts
    assert [num for _, num, _ in told] == [3, 3, 2]
    assert [num for _, _, num in told] == [3, 6, 9]  # the last call of progress tells the end
    assert NAME not in storage.list_names(out)


def test_announced_parts_stay_and_new_images_come_behind_them(photos, out):
    source = photos(*(f"{number}.png" for number in range(2, 9)))
    first, second = kept = cut_off(source, out, 2)
    before = [storage.read_bytes(part.uri) for part in kept]
    with pytest.raises(ManifestError, match="indexing did not finish"):
        open_manifest(out)
    photos("0.png", "5a.png")
    told = []
    manifest = write_manifest([source], out, refresh=True, on_part=told.append)
    assert tuple(told) == manifest.parts
    assert manifest.parts[:2] == (first, second)
    assert [storage.read_bytes(part.uri) for part in kept] == before
    assert names(manifest) == [f"{name}.png" for name in [2, 3, 4, 5, 6, 7, 0, "5a", 8]]
    assert manifest.digest == write_manifest([source], out, refresh=True).digest
    assert len(storage.list_names(out)) == len(manifest.parts) + 1


def test_it_may_be_cut_off_again_and_again(photos, tmp_path):
    out = str(tmp_path / "manifest")
    source = photos(*(f"{number:02d}.png" for number in range(20)))
    kept = []
    for after in range(1, 6):
        seen = cut_off(source, out, after)
        assert seen[: len(kept)] == kept
        kept = seen
        photos(f"{after:02d}-late.png")
    manifest = write_manifest([source], out, refresh=True)  # which keeps them as well
    assert list(manifest.parts[:5]) == kept
    assert len(set(names(manifest))) == len(names(manifest)) == 25


def test_images_that_went_meanwhile_stay_listed(photos, tmp_path):
    out = str(tmp_path / "manifest")
    source = photos(*(f"{number}.png" for number in range(6)))
    cut_off(source, out, 1)
    (tmp_path / "photos" / "0.png").unlink()
    manifest = write_manifest([source], out, refresh=True, on_part=lambda part: None)
    assert names(manifest) == [f"{number}.png" for number in range(6)]
    assert manifest.notes == ("1 of the images listed before are gone; they stay listed",)


def test_a_refresh_that_was_cut_off_keeps_its_new_parts(photos, out):
    source = photos("1.png", "2.png")
    finished = write_manifest([source], out)
    photos("0.png", "3.png", "4.png", "5.png")
    kept = cut_off(source, out, 2)
    assert kept[:1] == list(finished.parts)
    assert open_manifest(out) == finished
    photos("00.png")
    manifest = write_manifest([source], out, refresh=True, on_part=lambda part: None)
    assert list(manifest.parts[:2]) == kept
    assert names(manifest)[:5] == ["1.png", "2.png", "0.png", "3.png", "4.png"]
    assert sorted(names(manifest)[5:]) == ["00.png", "5.png"]
    assert manifest.earlier == (finished.digest,)


def test_what_has_finished_is_not_taken_for_begun(photos, tmp_path, monkeypatch):
    """Killed after manifest.json and before it tidied up."""
    out, source = str(tmp_path / "manifest"), photos("1.png", "2.png")

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(storage, "remove", killed)
        with pytest.raises(Killed):
            write_manifest([source], out, on_part=lambda part: None)
    assert NAME in storage.list_names(out)
    photos("0.png")
    assert names(write_manifest([source], out, refresh=True)) == ["1.png", "2.png", "0.png"]
    assert NAME not in storage.list_names(out)


def announced(sources, out, **options):
    """Lists, and returns the manifest and after how many images each part was announced."""
    after, listed = [], []
    manifest = write_manifest(
        sources, out, on_part=lambda _: after.append(max(listed)), progress=listed.append, **options
    )
    assert len(after) == len(manifest.parts)
    return manifest, after


def shard(path, *members):
    with tarfile.open(path, "w") as tar:
        for name in members:
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
    return str(path)


def test_several_sources_are_announced_as_they_come(photos, tmp_path):
    sources = [photos("1.png", "2.png", "3.png", "4.png", folder=name) for name in ("a", "b")]
    manifest, after = announced(sources, str(tmp_path / "manifest"))
    assert after == [3, 6, 8]
    assert names(manifest) == [f"{number}.png" for number in (1, 2, 3, 4)] * 2


def test_sources_that_overlap_are_announced_at_their_end(photos, tmp_path):
    sources = [photos("a/1.png", "a/2.png", "b/3.png", "b/4.png"), photos() + "/b"]
    manifest, after = announced(sources, str(tmp_path / "manifest"))
    assert after == [6, 6]
    assert names(manifest) == ["a/1.png", "a/2.png", "b/3.png", "b/4.png"]
    assert manifest.merged == 2


def test_shards_are_announced_as_they_come(tmp_path):
    for number in (1, 2):
        shard(tmp_path / f"{number}.tar", "a.png", "b.png", "c.png")
    manifest, after = announced([f"{tmp_path}/*.tar"], str(tmp_path / "manifest"))
    assert after == [3, 6]
    assert names(manifest) == [f"{n}.tar#{name}.png" for n in (1, 2) for name in "abc"]


def test_members_in_folders_wait_for_all_folders(tmp_path):
    shard(tmp_path / "1.tar", "plain.png", "dent/a.png", "dent/b.png", "dent/c.png")
    shard(tmp_path / "2.tar", "good/d.png", "e.png", "f.png")
    manifest, after = announced([f"{tmp_path}/*.tar"], str(tmp_path / "waits"))
    assert after == [7, 7, 7]
    facts = {row["member"]: row["abnormal"] for row in manifest.table().to_pylist()}
    assert [facts[name] for name in ("plain.png", "dent/a.png", "good/d.png")] == [
        None,
        True,
        False,
    ]
    assert names(manifest)[:3] == ["1.tar#plain.png", "2.tar#e.png", "2.tar#f.png"]


def test_members_in_no_folder_are_announced_as_they_come(tmp_path):
    shard(tmp_path / "1.tar", "a.png", "b.png", "c.png", "dent/a.png")
    shard(tmp_path / "2.tar", "good/d.png", "e.png", "f.png", "g.png")
    manifest, after = announced([f"{tmp_path}/*.tar"], str(tmp_path / "out"), abnormal=["dent"])
    assert after == [3, 8, 8]
    labels = {row["member"]: row["label"] for row in manifest.table().to_pylist()}
    assert [labels[name] for name in ("e.png", "dent/a.png", "good/d.png")] == [
        None,
        "dent",
        "good",
    ]


def test_a_shard_may_be_cut_off_too(tmp_path):
    out = str(tmp_path / "manifest")
    source = shard(tmp_path / "shard.tar", *(f"{number}.png" for number in range(7)))
    kept = cut_off(source, out, 2)
    manifest = write_manifest([source], out, refresh=True)
    assert list(manifest.parts[:2]) == kept
    assert names(manifest) == [f"shard.tar#{number}.png" for number in range(7)]


def test_an_error_keeps_what_was_announced_and_nothing_else(photos, out, monkeypatch):
    source = photos(*(f"{number}.png" for number in range(8)))
    write, told = storage.write_bytes, []

    def full(uri, data):
        if "part-00001" in uri:
            raise ArchiveError(f"{uri}: the disk is full")
        write(uri, data)

    monkeypatch.setattr(storage, "write_bytes", full)
    with pytest.raises(ArchiveError, match="disk is full"):
        write_manifest([source], out, on_part=told.append)
    (part,) = told
    assert storage.list_names(out) == [NAME, part.uri.rpartition("/")[2]]


def test_a_failed_listing_leaves_nothing(tmp_path, out):
    with pytest.raises(ArchiveError, match="none: there is no such"):
        write_manifest([str(tmp_path / "none")], out, on_part=lambda part: None)
    assert not storage.exists(out)


def test_other_work_is_refused(photos, tmp_path):
    out = str(tmp_path / "manifest")
    cut_off(photos("a/1.png", "a/2.png", "a/3.png", "b/4.png"), out, 1)
    with pytest.raises(Mismatch, match=r"holds an unfinished manifest of /.*photos; name another"):
        write_manifest([photos("1.png", folder="two")], out, refresh=True)
    with pytest.raises(Mismatch, match=r"made with abnormal not given, now it is \['a'\]"):
        write_manifest([photos()], out, refresh=True, abnormal=["a"])


def test_without_refresh_it_is_listed_afresh(photos, out):
    source = photos(*(f"{number}.png" for number in range(2, 9)))
    cut_off(source, out, 2)
    photos("0.png")
    manifest = write_manifest([source], out)
    assert names(manifest) == [f"{number}.png" for number in (0, *range(2, 9))]
    assert len(storage.list_names(out)) == len(manifest.parts) + 1
