"""Other engines read a table by its folder, and count the rows of each of its models."""

import duckdb
import pandas
import polars
import pyarrow as pa
import pyarrow.dataset
import pytest
from pyiceberg.catalog.sql import SqlCatalog

from ganad.scores.compact import compact
from ganad.scores.files import ScoreFile, list_files
from ganad.scores.parts import write_part, write_schema_mark
from ganad.scores.records import Job, write_job
from ganad.scores.table import SCHEMA
from tests.ganad.scores.make_table import MODEL, OTHER, make_rows, write_table

COUNTS = {MODEL: 60, OTHER: 40}


@pytest.fixture(params=["as scored", "compacted"])
def table(request, tmp_path):
    """As ganad score writes it, with its records beside the parts."""
    folder = str(tmp_path / "table")
    rows = {MODEL: make_rows(num=60), OTHER: make_rows(num=40, seed=1, labelled=False)}
    write_table(folder, rows, part_rows=20)
    for file in list_files(folder):
        (tmp_path / "table" / file.path).unlink()
    for model, some in rows.items():
        write_schema_mark(folder, model)
        for number, start in enumerate(range(0, len(some), 20)):
            part = [{**row, "model": model} for row in some[start : start + 20]]
            part = pa.Table.from_pylist(part, schema=SCHEMA)
            write_part(ScoreFile(folder, model, number, number), part, [{"rows": 20}])
    write_job(folder, Job(manifest="m", rows_per_unit=20))
    if request.param == "compacted":
        compact(folder)
    return folder


def test_pyarrow(table):
    found = pyarrow.dataset.dataset(table, partitioning="hive").to_table(["model", "score"])
    counts = found["model"].cast("string").value_counts().to_pylist()
    assert {one["values"]: one["counts"] for one in counts} == COUNTS


def test_pandas(table):
    found = pandas.read_parquet(table)
    assert found["model"].astype(str).value_counts().to_dict() == COUNTS


def test_polars(table):
    found = polars.scan_parquet(f"{table}/model=*/*.parquet", hive_partitioning=True)
    counts = found.group_by("model").len().collect()
    assert dict(counts.iter_rows()) == COUNTS


def test_duckdb(table):
    rows = duckdb.sql(
        f"SELECT model, count(*) FROM read_parquet('{table}/model=*/*.parquet', "
        f"hive_partitioning = true) GROUP BY 1"
    ).fetchall()
    assert dict(rows) == COUNTS


@pytest.mark.parametrize("partitioned", [False, True])
def test_iceberg(table, tmp_path, partitioned):
    catalog = SqlCatalog(
        "test", uri=f"sqlite:///{tmp_path}/catalog.db", warehouse=f"file://{tmp_path}/warehouse"
    )
    catalog.create_namespace("night")
    iceberg = catalog.create_table("night.scores", SCHEMA)
    if partitioned:
        with iceberg.update_spec() as spec:
            spec.add_identity("model")
    iceberg.add_files([file.uri for file in list_files(table)])
    counts = iceberg.scan(selected_fields=("model",)).to_arrow()["model"].value_counts()
    assert {one["values"]: one["counts"] for one in counts.to_pylist()} == COUNTS
