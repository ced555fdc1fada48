import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ganad.errors import TableError
from ganad.scores.counting import Rows, count_failures, count_images, count_rows, numbers_of
from ganad.scores.files import ScoreFile, list_files
from ganad.scores.table import SCHEMA, ScoreTable
from ganad.storage import distinct
from ganad.storage import files as storage
from tests.ganad.scores.make_table import MODEL, OTHER, make_rows, write_something_else, write_table


def test_an_image_that_several_models_score_is_counted_for_each(tmp_path, monkeypatch):
    monkeypatch.setattr(distinct, "HELD", 16)
    both = make_rows(), make_rows(seed=1)
    folder = write_table(str(tmp_path / "t"), {MODEL: [*both[0], both[0][5]], OTHER: both[1]})
    rows, images = count_images(list_files(folder), "t")
    assert images == {MODEL: 60, OTHER: 60}
    assert sum(one.num for one in rows) == 121
    assert rows == count_rows(list_files(folder), "t")


def test_failures_are_told_by_text_most_frequent_first(tmp_path):
    first, second = make_rows(num_failed=0), make_rows(num_failed=0)
    for rows, texts in ((first, "b" * 4 + "a" * 3), (second, "a" * 4)):
        for row, text in zip(rows, texts, strict=False):
            row |= {"score": None, "error": text}
    folder = write_table(str(tmp_path / "t"), {MODEL: first, OTHER: second}, part_rows=5)
    # Of "a", images 0 to 3 by one model and 4 to 6 by the other.
    assert list(count_failures(list_files(folder), "t").items()) == [("a", 7), ("b", 4)]


def test_an_image_that_fails_alike_under_both_models_fails_once(tmp_path):
    folder = write_table(str(tmp_path / "t"), {MODEL: make_rows(), OTHER: make_rows()})
    assert ScoreTable(folder).failures() == {"empty file": 2}


def test_footers_without_statistics_do_as_well(tmp_path):
    table = pa.Table.from_pylist(
        [{**row, "model": MODEL} for row in make_rows(num_failed=7)], schema=SCHEMA
    )
    file = ScoreFile(str(tmp_path), MODEL, 0, 0)
    (tmp_path / f"model={MODEL}").mkdir()
    pq.write_table(table, file.uri, write_statistics=False, row_group_size=9)
    (file,) = list_files(str(tmp_path))
    assert count_rows([file], "t") == [Rows(60, 53, 7)]


def test_damage_is_told_as_by_a_query(tmp_path):
    typed = str(tmp_path / "t")
    write_table(typed, {MODEL: make_rows()})
    file = list_files(typed)[1]
    data = storage.read_bytes(file.uri)
    for broken in (data[:300], data[:4] + bytes(len(data) - 4), b""):
        storage.write_bytes(file.uri, broken)
        with pytest.raises(TableError) as error:
            ScoreTable(typed).counts()
        assert str(error.value) == (
            f"{typed} holds a part that cannot be read ({file.path}): run the same ganad score "
            f"command again, which scores its images again"
        )


def test_a_file_that_vanishes_is_named(tmp_path):
    typed = write_table(str(tmp_path / "t"), {MODEL: make_rows()})
    files = list_files(typed)
    storage.remove(files[2].uri)
    with pytest.raises(TableError, match=f"^{typed} cannot be read: .*part-000002"):
        count_images(files, typed)


def test_a_file_of_something_else_is_refused(tmp_path):
    folder = write_something_else(tmp_path)
    with pytest.raises(TableError, match=r'not parts of a .*"image_id" does not exist'):
        ScoreTable(folder).counts()


def test_ids_are_their_digits_and_others_a_digest():
    ids = ["0" * 16, "00000000000000ff", "f" * 16]
    assert numbers_of(pa.array(ids)).tolist() == [0, 255, 2**64 - 1]
    assert numbers_of(pa.array(["x", *ids])[1:]).tolist() == [0, 255, 2**64 - 1]
    others = [
        "F" * 16,
        "f" * 15,
        "",
        "photo é.jpg",
        "g" * 16,
        " " * 16,
    ]
    mixed = numbers_of(pa.array([*ids, *others, None]))
    assert mixed.tolist()[:3] == [0, 255, 2**64 - 1]
    assert len(np.unique(mixed)) == len(ids) + len(others)
    # The number of an id does not depend on those beside it.
    assert numbers_of(pa.array(["F" * 16])).tolist() == mixed.tolist()[3:4]
