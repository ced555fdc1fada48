"""A changed byte of a score file is found; it is never another score in silence."""

import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ganad.errors import TableError
from ganad.scores.checksums import BLOCK, CheckedFile, Damaged, to_parquet
from ganad.scores.table import SCHEMA, ScoreTable
from ganad.storage import files as storage
from tests.ganad.scores.make_table import make_rows, small_table

NUM_FLIPS = 400


@pytest.fixture(scope="module")
def table():
    """Of several blocks."""
    return pa.Table.from_pylist(make_rows(num=4000), schema=SCHEMA)


@pytest.fixture(scope="module")
def data(table):
    return to_parquet(table)


def checked(folder, data):
    (folder / "x").write_bytes(data)
    return CheckedFile(str(folder / "x"), len(data))


def test_a_file_is_ordinary_parquet(table, data, tmp_path):
    checked(tmp_path, data)
    assert pq.read_table(tmp_path / "x").equals(table)
    assert len(data) > BLOCK


def test_any_range_is_read(data, tmp_path):
    file = checked(tmp_path, data)
    random_ = random.Random(0)
    for _ in range(200):
        start, size = random_.randrange(len(data)), random_.randrange(2 * BLOCK)
        assert file.read(start, size) == data[start : start + size]
    assert file.read(0, len(data)) == data
    assert file.read(len(data), 1) == b""


@pytest.mark.parametrize("where", ["anywhere", "in the footer"])
def test_a_flipped_bit_is_found(where, data, tmp_path):
    random_ = random.Random(0)
    for _ in range(NUM_FLIPS):
        place = random_.randrange(len(data) if where == "anywhere" else 5000)
        flipped = bytearray(data)
        flipped[-1 - place] ^= 1 << random_.randrange(8)
        with pytest.raises(Damaged):
            checked(tmp_path, flipped).check()


@pytest.mark.parametrize("num", [0, 3, 11, 3000])
def test_a_cut_file_is_found(num, data, tmp_path):
    with pytest.raises(Damaged):
        checked(tmp_path, data[:num]).check()


def test_names_that_look_like_checksums_are_kept(tmp_path):
    names = ["#" * 8, "ganad.footer", "ganad.blocks" * 3, "0" * 24]
    data = to_parquet(pa.table({"name": names}), {"ganad": "#" * 40 + "ganad.footer"})
    file = checked(tmp_path, data)
    file.check()
    assert file.table()["name"].to_pylist() == names
    assert file.metadata[b"ganad"] == b"#" * 40 + b"ganad.footer"


def test_a_file_of_an_earlier_version_is_read(table, tmp_path):
    pq.write_table(table, tmp_path / "x")
    file = CheckedFile(str(tmp_path / "x"), (tmp_path / "x").stat().st_size)
    assert file.table().equals(table)
    assert file.read(7, 9) == (tmp_path / "x").read_bytes()[7:16]
    file.check()


def test_a_query_never_gives_a_score_that_was_not_written(tmp_path):
    """DuckDB itself compares no checksums: of these flips it reads most as other scores."""
    table = ScoreTable(small_table(tmp_path, num=500, num_failed=0))
    (file, *_) = table.parts.values()
    rows = CheckedFile(file.uri, file.size).table()
    data = to_parquet(rows)
    metadata = pq.ParquetFile(pa.BufferReader(data)).metadata.row_group(0)
    column = metadata.column(SCHEMA.names.index("score"))
    random_ = random.Random(0)
    for _ in range(40):
        flipped = bytearray(data)
        place = column.data_page_offset + random_.randrange(column.total_compressed_size)
        flipped[place] ^= 1 << random_.randrange(8)
        storage.write_bytes(file.uri, bytes(flipped))
        with pytest.raises(TableError, match=f"a part that cannot be read .{file.path}.: run the"):
            ScoreTable(table.uri).query("SELECT score FROM scores")
