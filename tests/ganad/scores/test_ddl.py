"""Statements for other engines: DuckDB's is run, the others have every column."""

import duckdb
import pytest

from ganad.errors import ConfigError
from ganad.scores.ddl import ddl
from ganad.scores.table import SCHEMA, ScoreTable
from tests.ganad.scores.make_table import small_table


def test_duckdb_reads_the_table_by_its_statement(tmp_path):
    folder = tmp_path / "it's"
    folder.mkdir()
    table = ScoreTable(small_table(folder))
    with duckdb.connect() as connection:
        connection.execute(ddl(table, "duckdb"))
        (num,) = connection.execute("SELECT count(*) FROM scores").fetchone()
    assert num == 60


@pytest.mark.parametrize("engine", ["athena", "trino", "spark"])
def test_every_column_is_named_and_the_model_is_the_partition(tmp_path, engine):
    text = ddl(ScoreTable(small_table(tmp_path)), engine)
    for name in SCHEMA.names:
        assert f"{name} " in text
    assert text.count("model ") == 1
    assert str(tmp_path) in text


def test_another_engine_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="--ddl excel: use one of athena"):
        ddl(ScoreTable(small_table(tmp_path)), "excel")
