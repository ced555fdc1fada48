"""SQL statements that register a score table in other engines."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from ganad.errors import ConfigError
from ganad.scores.table import SCHEMA, ScoreTable
from ganad.storage.database import quoted

_HIVE = {
    pa.string(): "string",
    pa.int32(): "int",
    pa.float64(): "double",
    pa.bool_(): "boolean",
    pa.timestamp("us", "UTC"): "timestamp",
    pa.map_(pa.string(), pa.float64()): "map<string, double>",
}
_TRINO = _HIVE | {
    pa.string(): "varchar",
    pa.int32(): "integer",
    pa.timestamp("us", "UTC"): "timestamp(6)",
    pa.map_(pa.string(), pa.float64()): "map(varchar, double)",
}


def ddl(table: ScoreTable, engine: str) -> str:
    """The statements for athena, trino, spark or duckdb. Raises ConfigError for another engine."""
    if engine not in _ENGINES:
        raise ConfigError(f"--ddl {engine}: use one of {', '.join(_ENGINES)}")
    return _ENGINES[engine](table)


def _columns(types: dict[pa.DataType, str], last: str = "") -> str:
    lines = [f"  {field.name} {types[field.type]}" for field in SCHEMA if field.name != "model"]
    return ",\n".join(lines + ([last] if last else []))


def _athena(table: ScoreTable) -> str:
    # MSCK REPAIR TABLE makes Athena discover the partitions.
    return (
        f"CREATE EXTERNAL TABLE scores (\n{_columns(_HIVE)}\n)\n"
        f"PARTITIONED BY (model string)\nSTORED AS PARQUET\nLOCATION {quoted(table.uri + '/')};\n"
        f"MSCK REPAIR TABLE scores;"
    )


def _trino(table: ScoreTable) -> str:
    return (
        f"CREATE TABLE hive.default.scores (\n{_columns(_TRINO, '  model varchar')}\n)\n"
        f"WITH (format = 'PARQUET', partitioned_by = ARRAY['model'], "
        f"external_location = {quoted(table.uri + '/')});\n"
        f"CALL hive.system.sync_partition_metadata('default', 'scores', 'FULL');"
    )


def _spark(table: ScoreTable) -> str:
    return (
        f"CREATE TABLE scores (\n{_columns(_HIVE, '  model string')}\n)\n"
        f"USING PARQUET PARTITIONED BY (model) LOCATION {quoted(table.uri)};\n"
        f"MSCK REPAIR TABLE scores;"
    )


def _duckdb(table: ScoreTable) -> str:
    return (
        f"CREATE VIEW scores AS SELECT * FROM read_parquet("
        f"{quoted(table.uri + '/model=*/*.parquet')}, hive_partitioning = true);"
    )


_ENGINES: dict[str, Callable[[ScoreTable], str]] = {
    "athena": _athena,
    "trino": _trino,
    "spark": _spark,
    "duckdb": _duckdb,
}
