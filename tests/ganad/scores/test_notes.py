"""The notes in the parts of a table, and what they tell together."""

import pyarrow.parquet as pq
import pytest

from ganad.scores import notes as history
from ganad.scores.checksums import to_parquet
from ganad.scores.notes import kinds_of, read_notes, summary, to_metadata
from ganad.scores.table import ScoreTable
from tests.ganad.scores.make_table import MODEL, OTHER, make_rows, write_table


def note(began, ended, rows=100, decode_s=1.0, score_s=1.0, **others):
    own = {"rows": rows, "began": began, "ended": ended, "score_s": score_s, "first": "a.png"}
    own |= {"host": "h", "pid": 1, "restarted": False, "model": MODEL, "part": "part-000000"}
    own |= {"decode_s": decode_s, "retries": {}}
    return {**own, **others}


@pytest.fixture
def table(tmp_path):
    """Two parts of one model with notes, and one of another model without."""
    tables = {MODEL: make_rows(6), OTHER: make_rows(6)}
    write_table(str(tmp_path / "table"), tables, part_rows=4)
    for path in sorted((tmp_path / "table" / f"model={MODEL}").iterdir()):
        rows = pq.read_table(path, partitioning=None)
        path.write_bytes(to_parquet(rows, to_metadata([{"rows": len(rows)}])))
    return ScoreTable(str(tmp_path / "table"))


def test_notes_come_back_with_their_part_and_model(table):
    assert read_notes(table) == [
        {"rows": 4, "part": "part-000000.parquet", "model": MODEL},
        {"rows": 2, "part": "part-000001.parquet", "model": MODEL},
    ]


def test_a_note_changes_no_row(table):
    rows = table.query("SELECT * FROM scores")
    assert len(rows) == 12
    assert not rows.schema.metadata


def test_stages_are_summed_over_workers():
    notes = [note(0, 2), note(1, 3), note(0, 2, model=OTHER, score_s=4.0)]
    for key in ("decode_s", "retries"):
        del notes[2][key]
    stages = summary(notes)["stages"]
    assert stages["decode"] == {"images": 200, "seconds": 2.0, "images_per_s": 100.0}
    assert stages[f"score {MODEL}"] == {"images": 200, "seconds": 2.0, "images_per_s": 100.0}
    assert stages[f"score {OTHER}"] == {"images": 100, "seconds": 4.0, "images_per_s": 25.0}


def test_the_rate_over_time_has_the_pause_in_it():
    periods = summary([note(0, 10, rows=100), note(70, 80, rows=300)])["periods"]
    assert len(periods) == history.NUM_PERIODS
    assert [period["images_per_s"] for period in periods] == [10, 0, 0, 0, 0, 0, 0, 30]
    assert periods[7]["from"] == "1970-01-01T00:01:10+00:00"


def test_every_image_is_in_some_period():
    periods = summary([note(0.3, 7.1, rows=50), note(2.2, 31.4, rows=77)])["periods"]
    total = sum(period["images_per_s"] * period["seconds"] for period in periods)
    assert total == pytest.approx(127, abs=1.5)  # rates are rounded


def test_a_short_job_has_one_period():
    (period,) = summary([note(5.0, 5.4, rows=8)])["periods"]
    assert period["images_per_s"] == 20


def test_the_slowest_part_comes_first():
    usual = [note(0, 1, part=f"part-{n}") for n in range(7)]
    slow = summary([*usual, note(0, 9, part="part-slow", score_s=7.0, first="b.png")])["slowest"]
    assert len(slow) == history.NUM_SLOWEST
    assert slow[0] == {
        "part": "part-slow",
        "first": "b.png",
        "images": 100,
        "decode_s": 1.0,
        "score_s": 7.0,
        "times_the_usual": 4.0,
    }
    assert {one["times_the_usual"] for one in slow[1:]} == {1.0}


def test_what_was_retried():
    notes = [
        note(0, 1, retries={"S3 answers 503": 2}),
        note(0, 1, retries={"S3 answers 503": 1, "cut": 1}, pid=2, restarted=True),
        note(1, 2, pid=2, restarted=True),
    ]
    found = summary(notes)
    assert found["retries"] == {"S3 answers 503": 3, "cut": 1}
    assert found["restarts"] == 1


def test_a_table_without_notes():
    assert summary([]) == {}


def test_kinds_of_errors():
    failures = {"the file is empty": 3, "bomb: 9 x 9": 2, "bomb: 8 x 8": 2}
    assert kinds_of(failures) == {"bomb": 4, "the file is empty": 3}
