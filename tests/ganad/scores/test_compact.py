"""Small files become large ones, every row once, whenever the command is killed."""

import pyarrow.parquet as pq
import pytest

from ganad.errors import TableError
from ganad.scores.compact import Compacted, compact
from ganad.scores.files import list_files
from ganad.scores.table import ScoreTable
from ganad.storage import files as storage
from tests.ganad.scores.make_table import MODEL, OTHER, killed_at_removal, make_rows, write_table


@pytest.fixture
def table(tmp_path):
    rows = {MODEL: make_rows(num=60), OTHER: make_rows(num=60, seed=1)}
    return write_table(str(tmp_path / "table"), rows, part_rows=7)


def rows(table):
    return ScoreTable(table).query("SELECT * FROM scores ORDER BY model, image_id").to_pylist()


def test_a_table_has_the_same_rows_in_one_sorted_file_for_each_model(table):
    before = rows(table)
    assert compact(table) == Compacted(before=18, after=2)
    assert rows(table) == before
    for file in list_files(table):
        scores = pq.ParquetFile(file.uri).read(["score"])["score"].to_pylist()
        known = [score for score in scores if score is not None]
        assert scores[: len(known)] == sorted(known, reverse=True)
    assert compact(table) == Compacted(before=2, after=2)


def test_files_are_no_larger_than_they_need_be(table):
    size = list_files(table)[0].size
    compact(table, target_bytes=size + 1)
    assert [len(file.units) for file in list_files(table)] == [2, 2, 2, 2, 1] * 2


def test_a_gap_of_units_that_are_still_to_be_scored_is_kept(table):
    storage.remove(list_files(table)[3].uri)
    compact(table)
    names = [file.name for file in list_files(table) if file.model == list_files(table)[0].model]
    assert names == ["part-000000-000002.parquet", "part-000004-000008.parquet"]


@pytest.mark.parametrize("removals", [0, 1, 5])
def test_a_killed_command_leaves_every_row_once(table, removals, monkeypatch):
    before = rows(table)
    killed_at_removal(monkeypatch, removals)
    with pytest.raises(KeyboardInterrupt):
        compact(table)
    assert rows(table) == before
    monkeypatch.undo()
    assert compact(table).after == 2
    assert rows(table) == before
    assert len(list_files(table)) == 2


def test_a_damaged_file_is_named_and_nothing_is_lost(table):
    uri = list_files(table)[0].uri
    with open(uri, "r+b") as file:
        file.truncate(300)
    with pytest.raises(TableError, match="damaged file .* ganad score command again"):
        compact(table)
    assert len(list_files(table)) == 18


def test_a_folder_without_scores_is_refused(tmp_path):
    with pytest.raises(TableError, match="holds no scores"):
        compact(str(tmp_path))
