"""Writes the HTML report of a score table. Run: ganad report TABLE --out FILE.html"""

from __future__ import annotations

from ganad.errors import ConfigError
from ganad.report import write_report
from ganad.scores.table import ScoreTable


def report(table: str, out: str, num_worst: int = 24, model: str | None = None) -> str:
    """Write the report of a score table to one HTML file, local or on S3; returns its URI.

    num_worst: images to show per model. model: only models whose id begins with this.
    """
    if not out.lower().endswith((".html", ".htm")):
        raise ConfigError(f"--out {out} is not an HTML file: give a name that ends in .html")
    return write_report(ScoreTable(table), out, num_worst=num_worst, model=model)
