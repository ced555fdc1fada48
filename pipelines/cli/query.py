"""Ask a score table. Run: ganad query TABLE [SQL] [--top K] [--where EXPR] [--format table]"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TextIO

import pyarrow as pa

from ganad.errors import ConfigError, QueryError
from ganad.scores.table import ScoreTable
from ganad.storage.database import Limits, quoted
from pipelines.console.output import check_format, write_csv, write_json, write_table

TOP = 20
"""Images shown where nothing is asked for."""
SHOWN_ROWS = 100
"""Of a table for people; JSON and CSV hold all rows."""


def query(
    table: str,
    sql: str | None = None,
    top: int | None = None,
    where: str | None = None,
    format: str = "table",
    limits: Limits | None = None,
    out: TextIO | None = None,
) -> None:
    """Write the answer to out (standard output): a table for people, a JSON array, or CSV.

    sql: one SELECT over the view `scores`. Or top: the K highest scores of each model, images
    with an error left out; where: a condition on rows, with or without top. limits: of memory and
    disk.
    """
    out = out or sys.stdout
    check_format(format)
    if sql is not None and (top is not None or where is not None):
        flag = "--top" if top is not None else "--where"
        raise QueryError(
            f"{flag} and SQL are two ways to ask, and only one can be answered: "
            f"put the condition into the SQL, or leave the SQL out"
        )
    if top is not None and top < 1:
        raise ConfigError(f"--top {top} asks for no images: give 1 or more")
    scores = ScoreTable(table)
    people = format == "table"
    typed = sql
    if sql is None:
        typed = f"--where {where}" if where else f"--top {top or TOP}"
        sql = _sql(scores.models, top, where, people)
    schema, batches = scores.stream(sql, typed, as_text=True, limits=limits)
    names = _distinct(schema.names)
    rows = _rows(names, batches)
    if people:
        write_table(names, rows, out, SHOWN_ROWS)
    elif format == "json":
        write_json(rows, out)
    else:
        write_csv(names, rows, out)


def _rows(names: list[str], batches: Iterable[pa.RecordBatch]) -> Iterator[dict[str, object]]:
    for batch in batches:
        yield from batch.rename_columns(names).to_pylist(maps_as_pydicts="strict")


def _distinct(names: list[str]) -> list[str]:
    """Columns of one name, as a join gives them, are told apart by a number: score, score_2."""
    found: list[str] = []
    for name in names:
        fresh, number = name, 1
        while fresh in found:
            number += 1
            fresh = f"{name}_{number}"
        found.append(fresh)
    return found


def _sql(models: list[str], top: int | None, where: str | None, people: bool) -> str:
    """--top and --where as SQL. A line break ends a comment that a condition may end with."""
    columns = "*"
    if people:
        shown = ["label", "score", "p_value", "name"]
        shown += ["error"] if top is None and where else []
        columns = ", ".join((["model"] if len(models) > 1 else []) + shown)
    condition = f"({where}\n)" if where else "true"
    order = "score DESC NULLS LAST, image_id"
    if where and top is None:
        return f"SELECT {columns} FROM scores WHERE {condition} ORDER BY model, {order}"
    # One ORDER BY ... LIMIT per model lets DuckDB skip what cannot be among the first K.
    return " UNION ALL ".join(
        f"(SELECT {columns} FROM scores WHERE model = {quoted(model)} "
        f"AND score IS NOT NULL AND {condition} ORDER BY {order} LIMIT {top or TOP})"
        for model in models
    )
