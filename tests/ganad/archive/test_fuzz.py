"""Damaged files: a manifest gives its rows or one clear line, a source rows or one clear line.

To repeat it with many: GANAD_FUZZ=5000 pytest -m slow -s tests/ganad/archive/test_fuzz.py
"""

import io
import os
import random
import resource
import shutil
import tarfile
import time
from collections import Counter

import pyarrow as pa
import pytest

from ganad.archive import parts
from ganad.archive.listing import list_images
from ganad.archive.manifest import open_manifest, write_manifest
from ganad.archive.parquets import DAMAGE, read_cells
from ganad.archive.unfinished import NAME as UNFINISHED
from ganad.archive.unfinished import read_unfinished
from ganad.errors import GanadError
from ganad.storage import files as storage

LONGEST_S = 10.0
NUM = int(os.environ.get("GANAD_FUZZ", "500"))
"""Damaged files of each kind in the slow test."""


class Killed(BaseException):
    """Ends a listing in its middle."""


@pytest.fixture
def originals(tmp_path):
    """One file of each kind, beside what it needs."""
    root = tmp_path / "whole"
    for number, place in enumerate(("train/good", "test/good", "test/cut")):
        (root / "set" / place).mkdir(parents=True)
        (root / "set" / place / f"{number}.png").write_bytes(b"x" * 40)
    write_manifest([str(root / "set")], str(root / "manifest"))
    with pytest.raises(Killed):
        write_manifest([str(root / "set")], str(root / "begun"), refresh=True, on_part=killed)
    with tarfile.open(root / "a.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        for number in range(4):
            member = tarfile.TarInfo("long/" * 30 + f"{number}.png" if number else "0.png")
            member.size = 700
            tar.addfile(member, io.BytesIO(b"x" * 700))
        member = tarfile.TarInfo("link.png")
        member.type, member.linkname = tarfile.LNKTYPE, "0.png"
        tar.addfile(member)
    images = {"image": [b"x" * 300] * 9, "name": list("abcdefghi"), "label": ["good"] * 9}
    storage.write_table(str(root / "b.parquet"), pa.table(images), row_group_size=4)
    lines = "".join(f"set/train/good/0.png,good,{n}\n" for n in range(3))
    (root / "list.csv").write_text(f"uri,label,score\n{lines}")
    (root / "labels.csv").write_text("path;label;abnormal\ntrain/good/0.png;good;no\n;;\n")
    return root


def killed(part):
    raise Killed


def rows_of_manifest(root):
    parts._verified.cache_clear()
    manifest = open_manifest(str(root / "manifest"))
    return manifest.table().to_pylist(), manifest.labels, manifest.sources


def cells(uri):
    """The rows of a Parquet file, and the bytes of its images."""
    rows = list(list_images([uri]))
    places = [row["offset"] for row in rows if row["column"]]
    try:
        data = dict(read_cells(uri, "image", places)) if places else {}
    except (*DAMAGE, OSError, KeyError):  # an error of the images, see ganad.images.load
        data = {}
    return rows, data


TARGETS = {
    "manifest.json": ("manifest/manifest.json", rows_of_manifest),
    "part": ("manifest/part-*.parquet", rows_of_manifest),
    UNFINISHED: (f"begun/{UNFINISHED}", lambda root: read_unfinished(str(root / "begun"))),
    "tar": ("a.tar", lambda root: list(list_images([str(root / "a.tar")]))),
    "parquet": ("b.parquet", lambda root: cells(str(root / "b.parquet"))),
    "list": ("list.csv", lambda root: list(list_images([str(root / "list.csv")]))),
    "labels": (
        "labels.csv",
        lambda root: (
            write_manifest(
                [str(root / "set")], str(root / "out"), labels=str(root / "labels.csv")
            ).num_images
        ),
    ),
}
CHECKED = ("manifest.json", "part", UNFINISHED)
"""These have checksums: what is read is what was written."""


def damaged(data, rng):
    """The bytes with some of them flipped, lost, repeated, or replaced by zeros or by noise."""
    data = bytearray(data)
    start = rng.randrange(len(data))
    length = min(rng.choice([1, 4, 64, 512]), len(data) - start)
    match rng.randrange(6):
        case 0 | 1:
            for _ in range(rng.choice([1, 1, 1, 2, 8])):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case 2:
            del data[start:]
        case 3:
            del data[start : start + length]
        case 4:
            data[start : start + length] = rng.choice([bytes(length), rng.randbytes(length)])
        case 5:
            data[start:start] = data[start : start + length]
    return bytes(data)


def fuzz(originals, kind, num, seed):
    """Counts of what became of num damaged files."""
    pattern, read = TARGETS[kind]
    (file,) = originals.glob(pattern)
    whole, expected = file.read_bytes(), read(originals)
    rng, counts = random.Random(f"{kind} {seed}"), Counter()
    for _ in range(num):
        file.write_bytes(damaged(whole, rng))
        began = time.monotonic()
        try:
            found = read(originals)
        except GanadError as error:
            message = str(error)
            assert "\n" not in message, message
            assert len(message) < 2000
            counts["errors of one line"] += 1
        else:
            counts["read as before" if found == expected else "read otherwise"] += 1
        counts["over 10 s"] += time.monotonic() - began > LONGEST_S
        shutil.rmtree(originals / "out", ignore_errors=True)
    file.write_bytes(whole)
    assert read(originals) == expected
    return counts


@pytest.mark.parametrize("kind", TARGETS)
def test_damaged_files(originals, kind):
    counts = fuzz(originals, kind, 4 if kind == "labels" else 60, 0)
    assert counts["over 10 s"] == 0
    assert kind not in CHECKED or counts["read otherwise"] == 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", TARGETS)
def test_many_damaged_files(originals, kind):
    num = NUM // 10 if kind == "labels" else NUM
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counts = fuzz(originals, kind, num, 1)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    print(f"\n{kind}: {num:,} damaged files, {dict(counts)}, {grown} MiB more memory at most")
    assert counts["over 10 s"] == 0
    assert grown < 2000
    assert kind not in CHECKED or counts["read otherwise"] == 0
