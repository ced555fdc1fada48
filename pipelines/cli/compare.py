"""Compares two score tables. Run: ganad compare TABLE_A TABLE_B [--bound D]"""

from __future__ import annotations

import sys
from typing import Any, TextIO

from ganad.errors import ConfigError
from ganad.evaluation.compare import QUANTILES, Comparison, sentences
from ganad.evaluation.compare import compare as compare_tables
from ganad.evaluation.evaluate import ALPHA
from ganad.scores.table import ScoreTable
from pipelines.console.output import check_format, write_csv, write_json, write_lines, write_table
from pipelines.console.progress import say

BEYOND = 3
"""Exit status if the tables differ by more than the bound; 1 means an error."""


def compare(
    first: str,
    second: str,
    bound: float | None = None,
    format: str = "table",
    out: TextIO | None = None,
) -> int:
    """Print the differences between the scores of two tables and return the exit status.

    bound: largest acceptable distance, 0 to 1. If a distance exceeds it significantly, the status
    is BEYOND.
    """
    out = out or sys.stdout
    check_format(format)
    if bound is not None and not 0 <= bound <= 1:
        raise ConfigError(f"--bound {bound:g} is not a distance: give one between 0 and 1")
    result = compare_tables(ScoreTable(first), ScoreTable(second))
    if format == "table":
        rows = [_cells(comparison) for comparison in result.comparisons]
        write_table(list(rows[0]) if rows else ["model"], rows, out)
        write_lines(
            [
                "",
                "distance: the Kolmogorov-Smirnov statistic, 0 for equal scores, 1 for scores that "
                "do not overlap. chance: probability of such a distance if both tables come from "
                "one distribution. The other columns show the first table → the second table.",
                *(f"note: {note}" for note in result.notes),
            ],
            out,
        )
    else:
        rows = [_row(comparison) for comparison in result.comparisons]
        if format == "json":
            write_json(rows, out)
        else:
            write_csv(list(rows[0]) if rows else ["model"], rows, out)
        for note in result.notes:
            say(f"note: {note}")
    if bound is None:
        return 0
    beyond = result.beyond(bound)
    for sentence in sentences(beyond, bound):
        say(sentence)
    return BEYOND if beyond else 0


def _row(one: Comparison) -> dict[str, Any]:
    row: dict[str, Any] = {"model": one.model, "folder": one.folder}
    for name, side in (("first", one.first), ("second", one.second)):
        row[f"num_{name}"] = side.num
        for quantile, value in zip(QUANTILES, side.quantiles, strict=True):
            row[f"score_{quantile * 100:g}_percent_{name}"] = value
        row[f"share_flagged_{name}"] = side.share_flagged
    return row | {"alpha": ALPHA, "distance": one.distance, "chance": one.chance}


def _cells(one: Comparison) -> dict[str, str | float]:
    cells: dict[str, str | float] = {
        "model": one.model,
        "folder": "(all)" if one.folder is None else one.folder or ".",
        "images": f"{one.first.num:,} → {one.second.num:,}",
    }
    values = zip(QUANTILES, one.first.quantiles, one.second.quantiles, strict=True)
    for quantile, before, after in values:
        name = "median" if quantile == 0.5 else f"{quantile:.0%}"
        cells[name] = f"{before:.4g} → {after:.4g}"
    flagged = (one.first.share_flagged, one.second.share_flagged)
    cells[f"p < {ALPHA}"] = " → ".join("–" if s is None else f"{s:.2%}" for s in flagged)
    return cells | {"distance": one.distance, "chance": one.chance}
