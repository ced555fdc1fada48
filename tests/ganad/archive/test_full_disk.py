"""A disk that is full while an archive is listed is named, and what was written is removed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from ganad.archive import merge
from ganad.archive.manifest import write_manifest
from ganad.errors import ArchiveError

INDEX = """
import os, sys
from ganad.archive.manifest import write_manifest
from ganad.errors import ArchiveError
try:
    write_manifest(sys.argv[3:], sys.argv[2])
except ArchiveError as error:
    print(error)
print(sorted(os.listdir(sys.argv[1])))
"""


@pytest.mark.parametrize(("kilobytes", "sources"), [(8, 1), (60, 1), (300, 2)])
def test_a_disk_that_is_full_is_named(tmp_path, kilobytes, sources):
    """On a disk of our own, which needs a user namespace. It has no room for the database, for the
    part, or for the rows of sources that overlap."""
    if shutil.which("unshare") is None or not _may_mount():
        pytest.skip("this user may not mount a disk of its own")
    for number in range(3000):
        (tmp_path / "photos" / f"{number:050d}").mkdir(parents=True)
        (tmp_path / "photos" / f"{number:050d}" / "x.png").touch()
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size={kilobytes}k none {disk} && exec "
    photos = [str(tmp_path / "photos")] * sources
    arguments = [sys.executable, "-c", INDEX, str(disk), f"{disk}/m", *photos]
    command = ["unshare", "-rm", "sh", "-c", f'{mount} "$@"', "sh", *arguments]
    root = str(Path(__file__).parents[3])
    environment = {**os.environ, "PYTHONPATH": root, "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    error, left = done.stdout.splitlines()
    assert error.startswith(f"{disk}/m")
    assert "make room there, or write to another disk" in error
    assert left in ("[]", "['m']")


def _may_mount() -> bool:
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.parametrize("error", [duckdb.IOException, duckdb.OutOfMemoryException])
def test_no_room_for_the_merge(photos, tmp_path, monkeypatch, error):
    def full(self, naming):
        raise error("could not write 262144 bytes: No space left on device")

    monkeypatch.setattr(merge.Merge, "judge", full)
    with pytest.raises(ArchiveError, match=r"out: there is no room left .*; make room there, or"):
        write_manifest([photos("1.png")], str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
