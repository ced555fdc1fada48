"""ganad index: what it writes, what it says, and that a dry run leaves nothing behind."""

import io
import json
import tarfile

import pytest
from PIL import Image

from ganad.archive.manifest import is_manifest, open_manifest
from ganad.errors import ArchiveError
from pipelines.cli.app import main
from pipelines.cli.index import index


@pytest.fixture
def archive(tmp_path):
    """3 good images and 1 scratched one in the MVTec layout, and a file that is no image."""
    root = tmp_path / "parts"
    for number, place in enumerate(("train/good", "train/good", "test/good", "test/scratch")):
        (root / place).mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), number).save(root / place / f"{number}.png")
    (root / "notes.txt").write_text("not an image")
    return root


def test_the_manifest_is_written_and_described(archive, tmp_path, capsys):
    out = str(tmp_path / "manifest")
    manifest = index([str(archive)], out)
    assert manifest == open_manifest(out)
    assert manifest.labels == {"good": 3, "scratch": 1}
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"{out}: 4 images, 3 normal and 1 abnormal (good 3, scratch 1)\n" in captured.err
    assert "1 file is not an image and was left out\n" in captured.err


def test_duplicates_are_merged_and_said(archive, tmp_path, capsys):
    manifest = index([str(archive), str(archive / "test")], str(tmp_path / "manifest"))
    assert manifest.num_images == 4
    assert manifest.merged == 2
    assert "2 duplicates merged" in capsys.readouterr().err


def test_a_dry_run_lists_and_keeps_nothing(archive, tmp_path, capsys):
    out = tmp_path / "manifest"
    before = sorted(tmp_path.rglob("*"))
    index([str(archive)], str(out), dry_run=True)
    plan = json.loads(capsys.readouterr().out)
    assert plan["images"] == 4
    assert plan["out"] == str(out)
    assert plan["labels"] == {"good": 3, "scratch": 1}
    assert sorted(plan["first"])[0] == "test/good/2.png"
    assert sorted(tmp_path.rglob("*")) == before
    assert not is_manifest(str(out))


def test_labels_can_be_called_abnormal(archive, tmp_path):
    manifest = index([str(archive)], str(tmp_path / "manifest"), abnormal=["good"])
    assert manifest.num_abnormal == 3


def test_a_source_that_is_not_there(tmp_path):
    missing = str(tmp_path / "missing")
    with pytest.raises(ArchiveError, match=f"^{missing}"):
        index([missing], str(tmp_path / "manifest"))
    assert not (tmp_path / "manifest").exists()


def test_many_labels_are_counted_not_listed(tmp_path, capsys):
    for number in range(12):
        (tmp_path / "archive" / f"class{number:02d}").mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "archive" / f"class{number:02d}" / "x.png")
    index([str(tmp_path / "archive")], str(tmp_path / "manifest"))
    said = capsys.readouterr().err
    assert "class07 1 and 4 more)" in said
    assert "class08" not in said


def test_a_refresh_says_how_many_are_new(archive, tmp_path, capsys):
    out = str(tmp_path / "manifest")
    index([str(archive)], out)
    Image.new("L", (8, 8)).save(archive / "test" / "good" / "new.png")
    index([str(archive)], out, refresh=True, dry_run=True)
    assert json.loads(capsys.readouterr().out)["new"] == 1
    assert open_manifest(out).num_images == 4
    index([str(archive)], out, refresh=True)
    assert "5 images, 4 normal and 1 abnormal" in (said := capsys.readouterr().err)
    assert ", 1 of them new" in said
    assert open_manifest(out).num_images == 5


def test_a_damaged_shard_is_said_by_the_last_line_and_the_exit_status(tmp_path, capsys):
    for number in range(3):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as tar:
            for name in ("a.png", "b.png"):
                member = tarfile.TarInfo(name)
                member.size = 2000
                tar.addfile(member, io.BytesIO(b"x" * 2000))
    (tmp_path / "1.tar").write_bytes((tmp_path / "1.tar").read_bytes()[:3000])
    out = str(tmp_path / "manifest")
    with pytest.raises(SystemExit) as end:
        main(["index", f"{tmp_path}/*.tar", "--out", out])
    assert end.value.code == 1
    said = capsys.readouterr().err
    assert f"{out}: 6 images" in said
    assert f"{tmp_path}/1.tar: could not be listed completely: is damaged or not a tar file" in said
    assert "ganad: " in said
    assert (
        "1 shard could not be listed completely, so images are missing; repair the shards" in said
    )
    assert open_manifest(out).num_errors == 1
