"""Whatever the images are called, every kind of source gives the same manifest for them."""

import csv
import io
import os
import tarfile
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ganad.archive.layout import labels_of_folders
from ganad.archive.manifest import open_manifest, write_manifest
from ganad.archive.rows import label_of
from ganad.archive.walk import GROUND_TRUTH, expand_braces, is_glob

NUM = int(os.environ.get("GANAD_FUZZ", "30"))
"""Examples of the slow test."""
QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large]
RESERVED = {GROUND_TRUTH, "train", "test", "val", "validation", "..", "."}

letters = st.characters(exclude_categories=["Cs"], exclude_characters="/\0")
words = st.one_of(
    st.text(letters, min_size=1, max_size=12),
    st.sampled_from(["good", "Good ", "OK", "cut", "1", "1.0", "1.00", " ", "a b", "#", "'", "ä"]),
).filter(lambda word: not word.startswith(".") and word not in RESERVED)
files = st.builds(lambda word, ending: word + ending, words, st.sampled_from([".png", ".JPG"]))
classes = st.dictionaries(words, st.sets(files, min_size=1, max_size=3), min_size=2, max_size=4)


def facts(manifest, prefix=""):
    """(label, abnormal, split) of each image by its path."""
    rows = manifest.table().to_pylist()
    assert {row["error"] for row in rows} == {None}
    assert len({row["image_id"] for row in rows}) == len(rows) == manifest.num_images
    return {
        row["name"].removeprefix(prefix): (row["label"], row["abnormal"], row["split"])
        for row in rows
    }


def write_list(path, columns, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    return str(path)


def check(tree):
    """tree: paths of images, at least two folders at the top."""
    with tempfile.TemporaryDirectory() as place:
        base = Path(place)
        root = base / "set"
        for path in sorted(tree):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(b"1")

        def manifest(name, *sources, **options):
            return write_manifest(list(sources), f"{base}/out-{name}", **options)

        whole = manifest("folder", str(root))
        expected = facts(whole)
        assert set(expected) == tree
        assert facts(manifest("glob", f"{root}/**")) == expected
        assert facts(manifest("braces", f"{base}/{{set,set}}")) == expected
        assert facts(open_manifest(f"{base}/out-folder")) == expected
        assert whole.digest == manifest("again", str(root)).digest

        with tarfile.open(base / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
            for path in sorted(tree):
                member = tarfile.TarInfo(path)
                member.size = 1
                tar.addfile(member, io.BytesIO(b"1"))
        assert facts(manifest("tar", f"{base}/a.tar"), "a.tar#") == expected

        paths = sorted(tree)
        labels = [expected[path][0] for path in paths]
        table = pa.table(
            {"image": [b"1"] * len(paths), "name": paths, "label": pa.array(labels, pa.string())}
        )
        pq.write_table(table, base / "b.parquet")
        found = facts(manifest("parquet", f"{base}/b.parquet"), "b.parquet#")
        assert {path: each[:2] for path, each in found.items()} == {
            path: each[:2] for path, each in expected.items()
        }

        rows = whole.table().to_pylist()
        columns = ["uri", "name", "label", "abnormal", "mask", "split"]
        uris = write_list(
            base / "uris.csv", columns, [[row[key] for key in columns] for row in rows]
        )
        listed = manifest("csv", uris)
        assert facts(listed) == expected
        assert listed.digest == whole.digest
        pq.write_table(whole.table().select(columns), base / "uris.parquet")
        assert manifest("uris", f"{base}/uris.parquet").digest == whole.digest

        # A CSV that says what the folders say changes nothing.
        said = [[row["uri"], row["label"], row["abnormal"]] for row in rows]
        labels_csv = write_list(base / "labels.csv", ["uri", "label", "abnormal"], said)
        assert facts(manifest("labels", str(root), labels=labels_csv)) == expected


def of_classes(folders):
    return {f"{folder}/{name}" for folder, names in folders.items() for name in names}


def of_mvtec(folders):
    """In the layout of MVTec: the first class is the normal one."""
    tree = {"train/good/0.png", "test/good/0.png"}
    return tree | {f"test/{folder}/{name}" for folder, names in folders.items() for name in names}


@pytest.mark.parametrize("layout", [of_classes, of_mvtec])
@given(folders=classes)
@example(folders={" ": {"a.png"}, "good": {"a.png"}})
@example(folders={"1.0": {"a.png"}, "1": {"b.png"}})
@settings(max_examples=4, deadline=None, suppress_health_check=QUIET, derandomize=True)
def test_every_kind_of_source_gives_the_same_manifest(layout, folders):
    check(layout(folders))


@pytest.mark.slow
@pytest.mark.parametrize("layout", [of_classes, of_mvtec])
@given(folders=classes)
@settings(max_examples=NUM, deadline=None, suppress_health_check=QUIET)
def test_every_kind_of_source_gives_the_same_manifest_many_times(layout, folders):
    check(layout(folders))


@given(st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none()))
def test_a_label_is_a_fixed_point(value):
    label = label_of(value)
    assert label is None or (label and label == label.strip())
    assert label_of(label) == label


@given(st.integers(-(2**53), 2**53))
def test_a_number_is_one_label_in_every_type(value):
    assert label_of(value) == label_of(float(value)) == label_of(f" {value}.0 ") == str(value)


@given(st.sets(st.lists(words, max_size=4).map("/".join), max_size=8))
def test_labels_of_folders_do_not_depend_on_what_is_above_them(folders):
    labels = labels_of_folders(folders)
    above = {folder: f"x/y/{folder}".rstrip("/") for folder in folders}
    if "" not in folders and folders:
        assert {above[folder]: label for folder, label in labels.items()} == labels_of_folders(
            above.values()
        )
    assert set(labels) == folders


@given(st.text(max_size=30))
def test_braces_never_lose_a_name(text):
    expanded = expand_braces(text)
    assert expanded or "{" in text
    if "{" not in text:
        assert expanded == [text]
    assert isinstance(is_glob(text), bool)
