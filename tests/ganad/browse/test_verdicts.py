"""A session writes its own file, line by line, beside the table, on disk as on S3."""

import pytest

from ganad.archive.verdicts import DEFECT, FALSE_ALARM, read_verdicts
from ganad.browse.verdicts import Verdicts
from ganad.errors import ArchiveError

ROWS = [
    {"image_id": f"0{i}", "uri": "s3://b/1.tar", "member": f"{i}.png", "name": f"a, {i}\n.png"}
    for i in range(3)
]


@pytest.fixture(params=["disk", "S3"])
def place(request, tmp_path):
    if request.param == "disk":
        return str(tmp_path / "table")
    s3 = request.getfixturevalue("s3")
    return s3.put(f"verdicts/{tmp_path.name}/part.parquet", b"").removesuffix("/part.parquet")


def test_what_is_judged_is_there_for_the_next_session(place):
    first = Verdicts(place, "Ada/../x")
    first.judge(ROWS[:2], DEFECT, "knn-1")
    first.judge(ROWS[2:], FALSE_ALARM, "knn-1")
    found = read_verdicts(place)
    assert {one: verdict.verdict for one, verdict in found.items()} == {
        "00": "defect",
        "01": "defect",
        "02": "false alarm",
    }
    assert found["01"].name == "a, 1\n.png"
    assert found["01"].who == "Ada/../x"
    second = Verdicts(place, "Bob")
    second.judge(ROWS[:1], FALSE_ALARM, "vae-2")
    assert first.uri != second.uri
    assert {v.verdict for v in read_verdicts(place).values()} == {"defect", "false alarm"}
    assert read_verdicts(place)["00"].who == "Bob"


def test_undo_restores_what_the_images_had_before(place):
    Verdicts(place, "Bob").judge(ROWS[:1], DEFECT, "knn-1")
    session = Verdicts(place, "Ada")
    session.judge(ROWS[:2], FALSE_ALARM, "knn-1")
    assert session.undo() == {"00": "defect", "01": ""}
    assert {one: v.verdict for one, v in read_verdicts(place).items()} == {"00": "defect"}
    assert session.undo() == {}


def test_a_table_that_cannot_be_written_to_is_named_and_nothing_counts(tmp_path):
    session = Verdicts(str(tmp_path), "Ada")
    (tmp_path / "_verdicts").write_text("a file where the folder should be")
    with pytest.raises(ArchiveError, match=r"_verdicts/.* cannot be written"):
        session.judge(ROWS, DEFECT, "knn-1")
    assert session.known == {}
    assert session.undo() == {}
