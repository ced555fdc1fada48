"""Tar shards: members found without reading them, read alone, and never written anywhere."""

import io
import itertools
import os
import tarfile
import threading

import pytest
from PIL import Image

from ganad.archive import tars
from ganad.archive.layout import Surroundings
from ganad.archive.listing import Listing, list_images
from ganad.archive.manifest import write_manifest
from ganad.archive.tars import listed_ahead, members
from ganad.errors import ArchiveError
from ganad.images.decode import Preprocessing
from ganad.images.load import load_images
from ganad.storage import files as storage


def picture(value):
    buffer = io.BytesIO()
    Image.new("L", (4, 4), value).save(buffer, "PNG")
    return buffer.getvalue()


def shard(files, form=tarfile.PAX_FORMAT, mode="w"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=form) as tar:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture(params=["local", "s3"])
def put(request, tmp_path):
    """A function that stores a shard, locally or on S3, and returns its uri."""

    def put(data, name="a.tar"):
        if request.param == "local":
            (tmp_path / name).write_bytes(data)
            return str(tmp_path / name)
        return request.getfixturevalue("s3").put(f"tars/{tmp_path.name}/{name}", data)

    return put


def values(rows):
    loaded = load_images(rows, [Preprocessing(image_size=4, channels=1)])
    return [one.image[0, 0, 0] if one.error is None else one.error for (one,) in loaded]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_read_where_they_lie(put, form):
    long = "deep/" * 15 + "x" * 90 + ".png"
    files = [(name, picture(i)) for i, name in enumerate(["a.png", "b/c.JPG", long], start=1)]
    uri = put(shard(files, form))
    rows = list(list_images([uri]))
    assert [row["member"] for row in rows] == ["a.png", "b/c.JPG", long]
    assert [row["name"] for row in rows] == [f"a.tar#{name}" for name, _ in files]
    assert [row["uri"] for row in rows] == [uri] * 3
    assert [row["size"] for row in rows] == [len(data) for _, data in files]
    assert len({row["image_id"] for row in rows}) == 3
    assert values(rows) == [1, 2, 3]


def test_folders_and_labels_inside(put):
    files = [
        ("./train/good/1.png", b"1"),
        ("./test/bent/2.png", b"2"),
        ("./ground_truth/bent/2_mask.png", b"3"),
        ("./test/bent/._2.png", b"4"),
        ("./readme.txt", b"5"),
    ]
    listing = Listing(put(shard(files)), Surroundings())
    rows = list(listing.rows())
    assert [(row["name"], row["label"], row["split"]) for row in rows] == [
        ("a.tar#train/good/1.png", "good", "train"),
        ("a.tar#test/bent/2.png", "bent", "test"),
    ]
    assert listing.num_skipped == 1


@pytest.mark.parametrize(
    ("paths", "labels"),
    [
        # The folder that was packed is above the labels, in one shard or in all of them.
        ([["parts/good/1.png"], ["parts/good/2.png", "parts/cut/3.png"]], ["good", "good", "cut"]),
        ([["a/b/good/x/1.png", "a/b/cut/y/2.png"]], ["good", "cut"]),
        ([["good/x/1.png"], ["cut/y/2.png"]], ["good", "cut"]),
        ([["good/1.png"], ["good/2.png"]], ["good", "good"]),
        ([["parts/good/1.png", "parts/good/2.png"]], ["good", "good"]),
        ([["parts/good/1.png", "parts/2.png"]], ["good", None]),
        ([["parts/good/1.png"], ["2.png"]], ["parts", None]),
        ([["parts/train/good/1.png"], ["parts/test/cut/2.png"]], ["good", "cut"]),
        ([["1.png"], ["2.png"]], [None, None]),
    ],
)
def test_the_label_is_the_folder_below_the_one_that_all_members_share(tmp_path, paths, labels):
    """`tar cf parts.tar parts` gave every image the label parts."""
    for number, names in enumerate(paths):
        data = shard([(name, b"1") for name in names])
        (tmp_path / f"{number}.tar").write_bytes(data)
    manifest = write_manifest([f"{tmp_path}/*.tar"], str(tmp_path / "manifest"))
    rows = sorted(manifest.table().to_pylist(), key=lambda row: row["name"][-5:])
    assert [row["label"] for row in rows] == labels
    if "cut" in labels:
        assert [row["abnormal"] for row in rows] == [label == "cut" for label in labels]


def test_masks_in_a_shard_are_said_to_be_unused(tmp_path):
    names = ("train/good/1.png", "test/cut/2.png", "ground_truth/cut/2_mask.png")
    (tmp_path / "a.tar").write_bytes(shard([(name, b"1") for name in names]))
    listing = Listing(str(tmp_path / "a.tar"), Surroundings())
    assert len(list(listing.rows())) == 2
    (note,) = listing.notes
    assert "a.tar: 1 masks inside shards are not used" in note


def test_braces_name_shards(put, tmp_path):
    uris = [put(shard([("a.png", picture(n))]), f"s-00{n}.tar") for n in range(4)]
    pattern = uris[0].replace("s-000.tar", "s-{000..002}.tar")
    rows = list(list_images([pattern]))
    assert [row["uri"] for row in rows] == uris[:3]
    manifest = write_manifest([pattern], str(tmp_path / "manifest"))
    assert manifest.sources == (pattern,)
    assert "s-004.tar" in refused(pattern.replace("002", "004"))


def test_braces_in_a_name_that_exists_are_its_own(tmp_path):
    for name in ("x{a,b}.png", "s-{1..2}.tar"):
        (tmp_path / name).write_bytes(shard([("a.png", picture(1))]))
    (row,) = list_images([f"{tmp_path}/x{{a,b}}.png"])
    assert row["uri"] == f"{tmp_path}/x{{a,b}}.png"
    (row,) = list_images([f"{tmp_path}/s-{{1..2}}.tar"])
    assert row["member"] == "a.png"


def test_a_manifest_knows_what_is_abnormal_in_all_shards_of_a_glob(put, tmp_path):
    put(shard([("bent/1.png", b"1")]), "0.tar")
    uri = put(shard([("good/2.png", b"2"), ("ä/3.png", b"3")]), "1.tar")
    pattern = uri.replace("1.tar", "*.tar")
    manifest = write_manifest([pattern], str(tmp_path / "manifest"))
    facts = {row["name"]: (row["label"], row["abnormal"]) for row in manifest.table().to_pylist()}
    assert facts == {
        "0.tar#bent/1.png": ("bent", True),
        "1.tar#good/2.png": ("good", False),
        "1.tar#ä/3.png": ("ä", True),
    }
    assert (manifest.num_normal, manifest.num_abnormal) == (1, 2)


def test_of_two_members_with_one_name_the_later_counts(put, tmp_path):
    files = [("a.png", picture(1)), ("b.png", picture(2)), ("a.png", picture(3))]
    manifest = write_manifest([put(shard(files))], str(tmp_path / "manifest"))
    rows = manifest.table().to_pylist()
    assert [row["member"] for row in rows] == ["a.png", "b.png"]
    assert values(rows) == [3, 2]
    assert manifest.merged == 1


def test_names_that_lead_outside_are_only_text(tmp_path):
    files = [("../../up.png", picture(1)), ("/abs.png", picture(2)), ("a/../b.png", picture(3))]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tar").write_bytes(shard(files))
    rows = list(list_images([str(tmp_path / "in" / "a.tar")]))
    assert values(rows) == [1, 2, 3]
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "a.tar"]


def test_names_that_are_not_utf8(tmp_path):
    (tmp_path / "a.tar").write_bytes(
        shard([("aXb.png", picture(1)), ("aYb.png", picture(2))], tarfile.USTAR_FORMAT)
        .replace(b"aXb.png", b"a\xffb.png")
        .replace(b"aYb.png", b"a\xfeb.png")
    )
    # The headers' checksums count the bytes: made anew for the changed names.
    data = bytearray((tmp_path / "a.tar").read_bytes())
    for start in range(0, len(data), 512):
        if data[start : start + 1] == b"a":
            data[start + 148 : start + 156] = b" " * 8
            total = sum(data[start : start + 512])
            data[start + 148 : start + 156] = b"%06o\0 " % total
    (tmp_path / "a.tar").write_bytes(data)
    rows = list(list_images([str(tmp_path / "a.tar")]))
    assert [row["member"] for row in rows] == ["a\\xffb.png", "a\\xfeb.png"]
    assert values(rows) == [1, 2]


def test_linked_members_are_read_where_they_lead(tmp_path):
    """tar stores a file with several names once, and links for the others."""
    root = tmp_path / "parts"
    for name in ("a", "good"):
        (root / name).mkdir(parents=True)
    (root / "a" / "1.png").write_bytes(picture(1))
    (root / "good" / "2.png").write_bytes(picture(2))
    os.link(root / "a" / "1.png", root / "good" / "hard.png")
    os.symlink("../good/2.png", root / "a" / "soft.png")  # which comes before its target
    os.symlink("soft.png", root / "a" / "chain.png")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(root, ".")
    listing = Listing(str(tmp_path / "a.tar"), Surroundings())
    rows = {row["name"].partition("#")[2]: row for row in listing.rows()}
    found = dict(zip(rows, values(list(rows.values())), strict=True))
    assert found == {
        "a/1.png": 1,
        "a/soft.png": 2,
        "a/chain.png": 2,
        "good/2.png": 2,
        "good/hard.png": 1,
    }
    assert len({row["image_id"] for row in rows.values()}) == 5
    assert listing.num_skipped == 0


def test_members_without_bytes_in_the_shard_are_errors(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, kind, link in (
            ("s.png", tarfile.SYMTYPE, "/etc/passwd"),
            ("h.png", tarfile.LNKTYPE, "gone.png"),
            ("self.png", tarfile.SYMTYPE, "self.png"),
            ("pipe.png", tarfile.FIFOTYPE, ""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, link
            tar.addfile(member)
        member = tarfile.TarInfo("a.png")
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
    listing = Listing(str(tmp_path / "a.tar"), Surroundings())
    errors = {row["member"]: row["error"] for row in listing.rows()}
    assert errors.pop("a.png") is None
    assert "/etc/passwd, which is not in the shard" in errors["s.png"]
    assert "gone.png, which is not in the shard" in errors["h.png"]
    assert "is a link to self.png" in errors["self.png"]
    assert errors["pipe.png"] == "is a pipe or a device, not a file"
    assert (listing.num_skipped, listing.num_damaged) == (0, 0)


def test_members_come_one_by_one_and_are_not_kept(tmp_path, monkeypatch):
    path = tmp_path / "a.tar"
    path.write_bytes(shard([(f"{i}.png", b"x" * 600) for i in range(300)]))
    kept = []
    read = tarfile.TarFile.next

    def watch(tar):
        kept.append(len(tar.members))
        return read(tar)

    monkeypatch.setattr(tarfile.TarFile, "next", watch)
    found = members(str(path))
    assert next(found).name == "0.png"
    assert len(kept) < 5
    assert len(list(found)) == 299
    assert max(kept) <= 1


def test_shards_of_a_glob_are_read_several_at_a_time(put, monkeypatch):
    uris = [put(shard([(f"{i}.png", picture(i))]), f"{i}.tar") for i in range(9)]
    together, entered = threading.Barrier(3, timeout=60), itertools.count()

    def watched(uri):
        if next(entered) < 3:  # none of the first three goes on before all of them have come
            together.wait()
        return members(uri)

    monkeypatch.setattr(tars, "members", watched)
    rows = list(list_images([uris[0].replace("0.tar", "*.tar")]))
    assert values(rows) == list(range(9))


def test_shards_are_not_read_any_more_when_nobody_wants_them(put):
    uris = [put(shard([(f"{i}.png", b"x") for i in range(3)]), f"{n}.tar") for n in range(9)]
    taken = []
    some = listed_ahead((taken.append(uri) or uri, uri) for uri in uris)
    assert next(some)[1].num_repeated == 0
    some.close()
    assert len(taken) < 9
    assert not [thread for thread in threading.enumerate() if "ganad-shards" in thread.name]


def refused(uri):
    with pytest.raises(ArchiveError) as caught:
        list(list_images([uri]))
    assert str(caught.value).startswith(uri)
    return str(caught.value)


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_compressed_shards_are_refused_with_a_remedy(put, mode):
    data = shard([("a.png", picture(1))], mode=mode)
    for name in ("a.tar", "a.tar." + mode[2:]):
        assert "is compressed" in refused(put(data, name))
        assert "decompress it to a plain .tar" in refused(put(data, name))


def test_a_shard_that_is_cut_off(put):
    data = shard([(f"{i}.png", b"x" * 2000) for i in range(5)])
    for length, whole in ((700, 1), (2 * 2560 + 100, 2), (2 * 2560 + 1000, 3)):
        rows = list(list_images([put(data[:length])]))
        assert [row["error"] is None for row in rows] == [True] * whole + [False]
        assert rows[-1]["error"].startswith("is damaged or not a tar file (")
        assert rows[-1]["member"] is None
    assert "is damaged or not a tar file" in refused(put(data[:100]))


def test_a_shard_that_is_cut_off_does_not_stop_the_others(tmp_path):
    for number in range(3):
        data = shard([(f"{number}{letter}.png", b"x" * 2000) for letter in "ab"])
        (tmp_path / f"{number}.tar").write_bytes(data[: 3000 if number == 1 else None])
    (tmp_path / "3.tar").write_bytes(b"not a shard at all" * 100)
    uri = f"{tmp_path}/*.tar"
    manifest = write_manifest([uri], str(tmp_path / "out"))
    rows = manifest.table().to_pylist()
    assert [row["name"] for row in rows if not row["error"]] == [
        *("0.tar#0a.png", "0.tar#0b.png", "1.tar#1a.png", "2.tar#2a.png", "2.tar#2b.png")
    ]
    assert [row["uri"] for row in rows if row["error"]] == [
        f"{tmp_path}/1.tar",
        f"{tmp_path}/3.tar",
    ]
    assert (manifest.num_images, manifest.num_errors, manifest.num_damaged) == (7, 2, 2)
    (note,) = manifest.notes
    assert note.startswith(f"{tmp_path}/1.tar: could not be listed completely: is damaged")
    # The same if the shell expands the glob.
    sources = [f"{tmp_path}/{number}.tar" for number in range(4)]
    assert write_manifest(sources, str(tmp_path / "four")).num_damaged == 2


def test_a_server_that_is_away_is_not_a_damaged_shard(tmp_path, monkeypatch):
    for number in range(2):
        (tmp_path / f"{number}.tar").write_bytes(shard([("a.png", b"x")]))

    def away(uri):
        raise ConnectionResetError

    monkeypatch.setattr(storage, "open_stream", away)
    with pytest.raises(ArchiveError, match="the connection failed"):
        list(list_images([f"{tmp_path}/*.tar"]))


def test_a_shard_with_a_damaged_header(put):
    data = bytearray(shard([(f"{i}.png", b"x" * 512) for i in range(5)]))
    data[2048:2148] = b"\xaa" * 100
    *whole, last = list_images([put(bytes(data))])
    assert [row["member"] for row in whole] == ["0.png", "1.png"]
    assert "no header at byte 2048" in last["error"]


def test_what_is_no_tar(put):
    assert "is damaged or not a tar file" in refused(put(b"hello" * 500))
    assert "is damaged or not a tar file" in refused(put(b""))


def test_an_empty_shard(put):
    assert "the shard holds no images" in refused(put(shard([])))
    assert "none of its 1 files is an image" in refused(put(shard([("a.txt", b"1")])))


def test_a_member_that_has_lost_its_bytes_is_an_error_text(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(shard([("a.png", picture(1))]))
    rows = list(list_images([str(path)]))
    path.write_bytes(path.read_bytes()[:550])
    assert values(rows) == ["truncated: the archive ends before this member does"]
