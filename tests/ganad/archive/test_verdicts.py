"""Verdicts in files: the last line about an image counts, and foreign files are refused."""

import csv

import pytest

from ganad.archive.labels import read_labels
from ganad.archive.manifest import write_manifest
from ganad.archive.verdicts import (
    DEFECT,
    FALSE_ALARM,
    HEADER,
    Verdict,
    is_verdicts,
    latest,
    parse,
    read_verdicts,
)
from ganad.errors import ArchiveError

ROW = {"image_id": "0a", "uri": "/a/1.png", "member": None, "name": "a/1.png"}


def line(choice, when, image_id="0a"):
    verdict = Verdict.of({**ROW, "image_id": image_id}, choice, "Ada", "knn-1")
    return Verdict(**{**vars(verdict), "when": when})


def test_the_latest_line_about_an_image_counts_in_any_order_of_files():
    lines = [line(FALSE_ALARM, "2026-01-02"), line(DEFECT, "2026-01-01")]
    assert latest(lines)["0a"].verdict == FALSE_ALARM


def test_an_empty_verdict_takes_the_one_before_it_back():
    assert latest([line(DEFECT, "2026-01-01"), line("", "2026-01-02")]) == {}


def test_a_verdict_is_a_label_as_well():
    assert (line(DEFECT, "1").label, line(DEFECT, "1").abnormal) == ("defect", "true")
    assert (line(FALSE_ALARM, "1").label, line(FALSE_ALARM, "1").abnormal) == ("good", "false")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"path,label\n", "is not a file of verdicts"),
        (b"\xff\xfe", "not CSV in UTF-8"),
        (",".join(HEADER).encode() + b"\n1,2\n", "line 2 is not a verdict"),
        (",".join(HEADER).encode() + b"\n" + b"x," * 9 + b"x\n", "line 2 is not a verdict"),
    ],
)
def test_a_file_that_holds_no_verdicts_is_refused_by_name(data, problem):
    with pytest.raises(ArchiveError, match=r"^/v\.csv.*" + problem):
        list(parse(data, "/v.csv"))


def test_a_table_without_verdicts_has_none(tmp_path):
    assert read_verdicts(str(tmp_path)) == {}
    assert is_verdicts(str(tmp_path / "_verdicts"))
    assert not is_verdicts(str(tmp_path))


def test_verdicts_are_labels(tmp_path):
    folder = tmp_path / "_verdicts"
    folder.mkdir()
    member = {**ROW, "image_id": "0b", "uri": "/a/1.tar", "member": "x/2.png", "name": "x/2.png"}
    lines = [
        Verdict.of(ROW, FALSE_ALARM, "Ada", "knn-1"),
        Verdict.of(ROW, DEFECT, "Ada", "knn-1"),
        Verdict.of(member, FALSE_ALARM, "Ada", "knn-1"),
    ]
    with open(folder / "1.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        writer.writerows(vars(line).values() for line in lines)
    for uri in (folder, folder / "1.csv"):
        found = {row.key: (row.label, row.abnormal) for row in read_labels(str(uri))}
        assert found == {"/a/1.png": ("defect", True), "x/2.png": ("good", False)}


def test_verdicts_are_a_source_and_what_was_taken_back_is_not_in_it(tmp_path):
    (tmp_path / "_verdicts").mkdir()
    rows = {}
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.png").write_bytes(b"x")
        uri = str(tmp_path / f"{name}.png")
        rows[name] = {"image_id": name, "uri": uri, "member": None, "name": f"{name}.png"}
    sessions = {
        "1": [Verdict.of(rows["a"], DEFECT, "Ada", "m"), Verdict.of(rows["b"], DEFECT, "Ada", "m")],
        "2": [
            Verdict.of(rows["a"], FALSE_ALARM, "Bob", "m"),
            Verdict.of(rows["c"], DEFECT, "Bob", "m"),
            Verdict.of(rows["c"], "", "Bob", "m"),
        ],
    }
    for session, lines in sessions.items():
        with open(tmp_path / "_verdicts" / f"{session}.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(HEADER)
            writer.writerows(vars(line).values() for line in lines)
    manifest = write_manifest([str(tmp_path / "_verdicts")], str(tmp_path / "manifest"))
    found = {row["name"]: (row["label"], row["abnormal"]) for row in manifest.table().to_pylist()}
    assert found == {"a.png": ("good", False), "b.png": ("defect", True)}
