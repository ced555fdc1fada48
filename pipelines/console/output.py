"""Rows of results as a table for people, as a JSON array, or as CSV."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import islice
from typing import Any, Literal, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ganad.errors import ConfigError

Row = Mapping[str, Any]
FORMATS = ("table", "json", "csv")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_LOG_WIDTH = 160
_FOLDED = 20
"""Characters below which text is not folded; rows that need more are written as records."""


def check_format(format: str) -> None:
    """Raise ConfigError for a format that there is not."""
    if format not in FORMATS:
        raise ConfigError(f"--format {format} is not known: give {', '.join(FORMATS)}")


def write_json(rows: Iterable[Row], out: TextIO) -> None:
    """A JSON array, one object a line. NaN and infinities, which JSON has not, become null."""
    out.write("[")
    for number, row in enumerate(rows):
        text = json.dumps(_plain(dict(row)), ensure_ascii=False, allow_nan=False)
        out.write(("\n" if number == 0 else ",\n") + text)
    out.write("\n]\n")


def write_csv(columns: Sequence[str], rows: Iterable[Row], out: TextIO) -> None:
    """CSV with a heading; null is an empty field, maps and lists are JSON."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        values = [_plain(row[column]) for column in columns]
        writer.writerow(
            json.dumps(value, ensure_ascii=False)
            if isinstance(value, dict | list | bool)
            else value
            for value in values
        )


def write_table(
    columns: Sequence[str], rows: Iterable[Row], out: TextIO, limit: int | None = None
) -> None:
    """A table that fits the terminal; after limit rows it says that there are more."""
    console = _console(out)
    rows = iter(rows)
    shown = list(islice(rows, limit))
    more = next(rows, None) is not None
    if not shown:
        console.print("no rows", style="dim")
        return
    cells = [[_cell(row[column]) for column in columns] for row in shown]
    numeric = [all(isinstance(row[name], int | float | None) for row in shown) for name in columns]
    widths = [max(map(len, texts)) for texts in zip(columns, *cells, strict=True)]
    least = [
        width if right else min(width, _FOLDED)
        for width, right in zip(widths, numeric, strict=True)
    ]
    if sum(least) + 2 * (len(columns) - 1) <= console.width:
        console.print(_grid(columns, cells, numeric))
    else:
        for texts in cells:
            console.print(_record(columns, texts))
    if more:
        console.print(
            f"only the first {limit} rows are shown; --format csv or json gives all", style="dim"
        )


def _grid(columns: Sequence[str], cells: list[list[str]], numeric: list[bool]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, right in zip(columns, numeric, strict=True):
        justify: Literal["left", "right"] = "right" if right else "left"
        table.add_column(Text(column), justify=justify, overflow="fold", no_wrap=right)
    for texts in cells:
        table.add_row(*map(Text, texts))
    return table


def _record(columns: Sequence[str], texts: list[str]) -> Table:
    """A row too wide for the terminal, one line per column."""
    table = Table.grid("", "", padding=(0, 2))
    for column, text in zip(columns, texts, strict=True):
        table.add_row(Text(column, "bold"), Text(text, overflow="fold"))
    table.add_row("", "")
    return table


def write_facts(facts: Iterable[tuple[str, str]], out: TextIO) -> None:
    """Names and what is known of them, a line each; names of files may be in it."""
    table = Table.grid("", "", padding=(0, 2))
    for name, fact in facts:
        table.add_row(Text(_CONTROL.sub("�", name)), Text(_CONTROL.sub("�", fact), overflow="fold"))
    _console(out).print(table)


def write_lines(lines: Iterable[str], out: TextIO) -> None:
    """Sentences, each wrapped at the width of the terminal."""
    console = _console(out)
    for line in lines:
        console.print(Text(_CONTROL.sub("�", line)))


def _console(out: TextIO) -> Console:
    console = Console(file=out, highlight=False)
    if not console.is_terminal:  # a log or a file: do not fold names at 80 columns
        console = Console(file=out, highlight=False, width=_LOG_WIDTH)
    return console


def _cell(value: Any) -> str:
    """For reading: few digits, and no control characters, which a terminal would obey."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_cell(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    return _CONTROL.sub("�", str(_plain(value)))


def _plain(value: Any) -> Any:
    """A value as JSON knows it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if value is None or isinstance(value, str | int):
        return value
    return str(value)
