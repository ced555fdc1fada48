"""A table in an Iceberg catalog, also after more was scored or compacted."""

import pytest
from pyiceberg.catalog.sql import SqlCatalog

from ganad.errors import ConfigError, TableError
from ganad.scores.compact import compact
from ganad.scores.iceberg import register
from tests.ganad.scores.make_table import MODEL, OTHER, make_rows, write_table


@pytest.fixture
def table(tmp_path):
    return write_table(str(tmp_path / "night 1"), {MODEL: make_rows()})


@pytest.fixture
def catalog(tmp_path):
    return f"sqlite:///{tmp_path}/catalog.db"


def counts(catalog, name="ganad.night_1"):
    scan = SqlCatalog("ganad", uri=catalog).load_table(name).scan(selected_fields=("model",))
    found = scan.to_arrow()["model"].value_counts().to_pylist()
    return {one["values"]: one["counts"] for one in found}


def test_a_table_is_registered_and_brought_up_to_date(table, catalog):
    assert register(table, catalog).num_added == 3
    assert counts(catalog) == {MODEL: 60}
    assert register(table, catalog).num_added == 0
    write_table(table, {OTHER: make_rows(num=20)})
    assert register(table, catalog).num_added == 1
    assert counts(catalog) == {MODEL: 60, OTHER: 20}
    compact(table)
    assert register(table, catalog).num_files == 2
    assert counts(catalog) == {MODEL: 60, OTHER: 20}


def test_the_name_is_the_users(table, catalog):
    assert register(table, catalog, "line3.monday").name == "line3.monday"
    assert counts(catalog, "line3.monday") == {MODEL: 60}
    with pytest.raises(ConfigError, match="--name monday: give NAMESPACE.TABLE"):
        register(table, catalog, "monday")


def test_a_catalog_that_does_not_answer_is_named(table):
    with pytest.raises(ConfigError, match="--catalog nonsense://x cannot be opened"):
        register(table, "nonsense://x")


def test_files_without_a_column_for_the_model_are_refused(table, catalog, tmp_path):
    import pyarrow.parquet as pq

    (path, *_) = sorted((tmp_path / "night 1").glob("model=*/*.parquet"))
    pq.write_table(pq.ParquetFile(path).read().drop_columns("model"), path)
    with pytest.raises(TableError, match="run ganad compact"):
        register(table, catalog)
