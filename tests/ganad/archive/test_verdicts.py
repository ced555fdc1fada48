"""Verdicts in files: the last line about an image counts, and foreign files are refused."""

import pytest

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
