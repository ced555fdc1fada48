"""Queries score tables. Run: ganad query TABLE... [SQL] [--top K] [--where EXPR] [--format F]"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal, TextIO

import pyarrow as pa

from ganad.archive.verdicts import verdict_rows
from ganad.errors import ConfigError, QueryError
from ganad.evaluation.ensemble import VIEW, add_ensemble
from ganad.evaluation.flags import (
    by_budget,
    by_false_discoveries,
    highest,
    models_of,
    promises,
    rows_where,
)
from ganad.scores.copies import NEEDED, copy_images
from ganad.scores.sql import Session, shortened, view_names
from ganad.scores.table import ScoreTable
from ganad.storage import files as storage
from ganad.storage.database import Limits, identifier
from pipelines.console.output import (
    check_format,
    write_arrow,
    write_csv,
    write_json,
    write_lines,
    write_table,
)
from pipelines.console.progress import say

VERDICTS = "verdicts"
"""The view of what people have said in ganad browse; its files are read only if it is asked for."""
TOP = 20
"""Default number of images."""
SHOWN_ROWS = 100
"""Maximum number of rows of the format table; the other formats have no limit."""
BINARY = ("parquet", "arrow")
FORMATS = ("table", "json", "csv", *BINARY)


@dataclass(frozen=True, kw_only=True)
class Question:
    """A query: SQL, or a rule that flags images. where: an additional condition."""

    sql: str | None = None
    top: int | None = None
    fdr: float | None = None
    budget: int | None = None
    where: str | None = None
    ensemble: str | None = None
    """The way to combine the models of the table."""

    def __post_init__(self) -> None:
        rules = {"--top": self.top, "--fdr": self.fdr, "--budget": self.budget}
        given = [flag for flag, value in rules.items() if value is not None]
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(given)} cannot be combined: give one of them")
        given += ["--where"] if self.where is not None else []
        if self.sql is not None and given:
            raise QueryError(
                f"{given[0]} and SQL cannot be combined: put the condition into the SQL, or leave "
                f"out the SQL"
            )
        for flag, number in (("--top", self.top), ("--budget", self.budget)):
            if number is not None and number < 1:
                raise ConfigError(f"{flag} {number} asks for no images: give 1 or more")

    @property
    def typed(self) -> str:
        """The text with which error messages begin."""
        if self.sql is not None:
            return self.sql
        if self.where:
            return f"--where {self.where}"
        for flag, value in (("--fdr", self.fdr), ("--budget", self.budget)):
            if value is not None:
                return f"{flag} {value:g}"
        return f"--top {self.top or TOP}"


def query(
    tables: str | Sequence[str],
    sql: str | None = None,
    *,
    top: int | None = None,
    where: str | None = None,
    fdr: float | None = None,
    budget: int | None = None,
    ensemble: str | None = None,
    files: Sequence[str] = (),
    copy_to: str | None = None,
    link_to: str | None = None,
    format: str = "table",
    limits: Limits | None = None,
    out: TextIO | None = None,
) -> None:
    """Write the result of a query to out (standard output) as a table, JSON, CSV, Parquet or Arrow.

    tables: the first is the view `scores`; each is also a view named after its folder, and so is
    each of files (CSV, JSON, Parquet). The view `verdicts` has what people said of the images of
    the first table. sql: one SELECT, PIVOT or EXPLAIN. Instead of SQL: top, the K highest scores of
    each model, without images with an error; fdr, the images that a false discovery rate flags;
    budget, about that many images of each model; where, a condition on rows, alone or with one of
    these. ensemble: fisher, min or mean of the models' p-values, queried instead of the models.
    copy_to, link_to: folder for the images in the result. limits: memory and disk that the query
    may use.
    """
    out = out or sys.stdout
    check_format(format, FORMATS)
    question = Question(sql=sql, top=top, where=where, fdr=fdr, budget=budget, ensemble=ensemble)
    if copy_to is not None and link_to is not None:
        raise ConfigError("--copy-to and --link-to cannot be combined: give one of them")
    places = [tables] if isinstance(tables, str) else list(tables)
    opened = [ScoreTable(place) for place in places]
    first = opened[0]
    if len(opened) > 1 and sql is None:
        raise QueryError(f"{' '.join(places)}: give SQL, or one table")
    with closing(first.session(limits)) as session:
        _add_views(session, opened, files)
        if re.search(rf"\b{VERDICTS}\b", question.typed, re.IGNORECASE):
            session.add_rows(VERDICTS, verdict_rows(first.uri))
        statement = _statement(first, session, question, format == "table", copy_to or link_to)
        if sql is not None or where is not None:
            for sentence in promises(first, session, statement):
                say(f"note: {sentence}")
        shown = f'"{shortened(question.typed, 100)}"'
        into: Literal["python", "arrow"] = "arrow" if format in BINARY else "python"
        schema, batches = session.stream(statement, shown=shown, into=into)
        if copy_to is not None or link_to is not None:
            batches = _copied(first, schema, batches, copy_to, link_to)
        _write(schema, batches, format, out)


def split_words(words: Sequence[str]) -> tuple[list[str], str | None]:
    """Split the words TABLE... [SQL]; the last word is SQL unless it is a path."""
    *tables, last = words
    is_path = storage.is_remote(last) or os.path.exists(os.path.expanduser(last))
    if not tables or is_path or re.fullmatch(r"[\w.~-]*(/[\w.-]*)+", last):
        return list(words), None
    return tables, last


def _add_views(session: Session, tables: Sequence[ScoreTable], files: Sequence[str]) -> None:
    names = view_names([*(table.uri for table in tables), *files])
    if names[0] != "scores":
        session.add_name(names[0])
    for name, table in zip(names[1:], tables[1:], strict=False):
        session.add_table(name, table.part_files)
    for name, file in zip(names[len(tables) :], files, strict=True):
        session.add_file(name, file)
    if len(names) > 1:
        places = [*(table.typed for table in tables), *files]
        views = ", ".join(f"{name} is {place}" for name, place in zip(names, places, strict=True))
        say(f"views: {views}")


def _statement(
    table: ScoreTable, session: Session, question: Question, people: bool, folder: str | None
) -> str:
    """The SQL of a question."""
    view, shown = "scores", ["label", "score", "p_value", "name"]
    if question.ensemble is not None:
        shown = add_ensemble(session, table.models, question.ensemble)
        view = VIEW
    if question.sql is not None:
        return question.sql
    condition = f"({question.where}\n)" if question.where else "true"
    flags = None
    if question.fdr is not None:
        flags = by_false_discoveries(table, session, question.fdr, view)
    elif question.budget is not None:
        flags = by_budget(session, question.budget, view)
    if flags is not None:
        for sentence in flags.sentences:
            say(sentence)
        condition = f"({flags.condition}) AND {condition}"
    every_row = question.where is not None and question.top is None and flags is None
    columns = "*"
    if people and folder is None:
        shown += ["error"] if every_row else []
        shown = (["model"] if len(table.models) > 1 and view == "scores" else []) + shown
        columns = ", ".join(map(identifier, shown))
    if every_row or flags is not None:
        return rows_where(condition, view, columns)
    models = table.models if view == "scores" else models_of(session, view)
    return highest(models, question.top or TOP, condition, view, columns)


def _copied(
    table: ScoreTable,
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch],
    copy_to: str | None,
    link_to: str | None,
) -> Iterator[pa.RecordBatch]:
    """The rows of a result, after their images have been copied or linked into a folder."""
    flag, folder = ("--copy-to", copy_to) if link_to is None else ("--link-to", link_to)
    assert folder is not None
    missing = [name for name in NEEDED if name not in schema.names]
    if missing:
        raise QueryError(f"{flag} {folder} needs the column {missing[0]}: add it to the SELECT")
    kept = list(batches)
    rows = (row for batch in kept for row in batch.to_pylist(maps_as_pydicts="strict"))
    result = copy_images(table, rows, folder, link=link_to is not None)
    linked = f", {result.num_linked:,} linked" if result.num_linked else ""
    say(f"{folder}: {result.num_copied:,} images copied{linked}; rows.csv lists their rows")
    for failure in result.failed:
        say(f"not copied: {failure}")
    return iter(kept)


def _write(schema: pa.Schema, batches: Iterable[pa.RecordBatch], format: str, out: TextIO) -> None:
    names = _distinct(schema.names)
    if format in BINARY:
        write_arrow(schema, batches, format, out)
        return
    rows = _rows(names, batches)
    if names == ["explain_key", "explain_value"] and format == "table":
        for row in rows:
            write_lines(str(row["explain_value"]).splitlines(), out)
    elif format == "table":
        write_table(names, rows, out, SHOWN_ROWS)
    elif format == "json":
        write_json(rows, out)
    else:
        write_csv(names, rows, out)


def _rows(names: list[str], batches: Iterable[pa.RecordBatch]) -> Iterator[dict[str, Any]]:
    for batch in batches:
        yield from batch.rename_columns(names).to_pylist(maps_as_pydicts="strict")


def _distinct(names: list[str]) -> list[str]:
    """Number the columns that share a name, as in the result of a join: score, score_2."""
    distinct: list[str] = []
    for name in names:
        fresh, number = name, 1
        while fresh in distinct:
            number += 1
            fresh = f"{name}_{number}"
        distinct.append(fresh)
    return distinct
