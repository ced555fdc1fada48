"""Writes rows of results as a text table, JSON, CSV, Parquet or Arrow."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import islice
from typing import Any, Literal, TextIO

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic_core import to_jsonable_python
from rich.table import Table
from rich.text import Text

from ganad.errors import ConfigError
from pipelines.console.terminal import clean, one_line, terminal

Row = Mapping[str, Any]
FORMATS = ("table", "json", "csv")
_FOLDED = 20
"""Minimum width of a text column; rows that do not fit then are written as records."""


def check_format(format: str, known: Sequence[str] = FORMATS) -> None:
    """Raise ConfigError for an unknown format."""
    if format not in known:
        raise ConfigError(f"--format {format} is not known: give {', '.join(known)}")


def write_json(rows: Iterable[Row], out: TextIO) -> None:
    """Write a JSON array, one object per line. NaN and infinity become null."""
    out.write("[")
    for number, row in enumerate(rows):
        text = json.dumps(_plain(dict(row)), ensure_ascii=False, allow_nan=False)
        out.write(("\n" if number == 0 else ",\n") + _escaped(text))
    out.write("\n]\n")


def _escaped(text: str) -> str:
    """Escape control characters in JSON; json.dumps only escapes those below 0x20."""
    return re.sub(
        r"[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]",
        lambda match: f"\\u{ord(match[0]):04x}",
        text,
    )


def write_csv(columns: Sequence[str], rows: Iterable[Row], out: TextIO) -> None:
    """Write CSV with a heading; null is an empty field, maps and lists are JSON. Control
    characters in text are replaced on a terminal only."""
    writer = csv.writer(out, lineterminator="\n")
    show = clean if out.isatty() else str
    writer.writerow([show(column) for column in columns])
    for row in rows:
        writer.writerow([_field(_plain(row[column]), show) for column in columns])


def _field(value: Any, show: Any) -> Any:
    if isinstance(value, dict | list | bool):
        return _escaped(json.dumps(value, ensure_ascii=False))
    return show(value) if isinstance(value, str) else value


def write_arrow(
    schema: pa.Schema, batches: Iterable[pa.RecordBatch], format: str, out: TextIO
) -> None:
    """Write a Parquet or Arrow IPC file. Raises ConfigError for a terminal."""
    if out.isatty():
        raise ConfigError(f"--format {format} is binary: add > FILE.{format}")
    sink = pa.PythonFile(out.buffer, mode="w")
    if format == "parquet":
        with pq.ParquetWriter(sink, schema) as parquet:
            for batch in batches:
                parquet.write_batch(batch)
    else:
        with pa.ipc.new_file(sink, schema) as arrow:
            for batch in batches:
                arrow.write_batch(batch)


def write_table(
    columns: Sequence[str], rows: Iterable[Row], out: TextIO, limit: int | None = None
) -> None:
    """Write a table that fits the terminal, with at most `limit` rows and a note if there are
    more."""
    console = terminal(out)
    rows = iter(rows)
    shown = list(islice(rows, limit))
    more = next(rows, None) is not None
    if not shown:
        console.print("no rows", style="dim")
        return
    headings = [one_line(column) for column in columns]
    cells = [[one_line(_cell(row[column])) for column in columns] for row in shown]
    numeric = [all(_is_number(row[name]) for row in shown) for name in columns]
    widths = [max(map(len, texts)) for texts in zip(headings, *cells, strict=True)]
    least = [
        width if right else min(width, _FOLDED)
        for width, right in zip(widths, numeric, strict=True)
    ]
    if sum(least) + 2 * (len(columns) - 1) <= console.width:
        console.print(_grid(headings, cells, numeric))
    else:
        for texts in cells:
            console.print(_record(headings, texts))
    if more:
        console.print(
            f"only the first {limit} rows are shown; --format csv or json writes all", style="dim"
        )


def _grid(headings: Sequence[str], cells: list[list[str]], numeric: list[bool]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading, right in zip(headings, numeric, strict=True):
        justify: Literal["left", "right"] = "right" if right else "left"
        table.add_column(Text(heading), justify=justify, overflow="fold", no_wrap=right)
    for texts in cells:
        table.add_row(*map(Text, texts))
    return table


def _record(headings: Sequence[str], texts: list[str]) -> Table:
    """A row that is too wide for the terminal, with one line per column."""
    table = Table.grid("", "", padding=(0, 2))
    for heading, text in zip(headings, texts, strict=True):
        table.add_row(Text(heading, "bold"), Text(text, overflow="fold"))
    table.add_row("", "")
    return table


def write_facts(facts: Iterable[tuple[str, str]], out: TextIO) -> None:
    """Write names and values, one line each."""
    table = Table.grid("", "", padding=(0, 2))
    for name, fact in facts:
        table.add_row(Text(one_line(name)), Text(one_line(fact), overflow="fold"))
    terminal(out).print(table)


def write_lines(lines: Iterable[str], out: TextIO) -> None:
    """Write sentences, each wrapped at the width of the terminal."""
    console = terminal(out)
    for line in lines:
        console.print(Text(one_line(line)))


def write_statements(text: str, out: TextIO) -> None:
    """Write SQL line by line, without wrapping, so that it can be copied."""
    console = terminal(out)
    for line in text.splitlines():
        console.print(Text(one_line(line)), soft_wrap=True)


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, int | float | Decimal)


def _cell(value: Any) -> str:
    """A value as short text."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int | Decimal):
        return f"{value:,}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_cell(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    return str(_plain(value))


def _plain(value: Any) -> Any:
    """A value as a JSON type: timestamps in ISO 8601, bytes in hexadecimal."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return to_jsonable_python(value, inf_nan_mode="null", bytes_mode="hex", fallback=str)
