"""The report: one HTML file to look at, which needs nothing but itself."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from ganad.archive import storage
from ganad.report.page import Page, Provider, gather
from ganad.rescore import map_provider
from ganad.table import ScoreTable

__all__ = ["write_report"]


def write_report(
    table: ScoreTable,
    out: str,
    *,
    num_worst: int = 24,
    model: str | None = None,
    provider: Provider | None = map_provider,
) -> str:
    """Write the page for a table, of all its models or the one whose id begins with `model`.

    provider(table, model id) gives the function that computes anomaly maps for rows; by default
    it loads the model named in run.json, and None leaves the maps out. Returns the file's URI.
    """
    page = gather(table, num_worst, model, provider)
    uri = storage.absolute(out)
    storage.write_bytes(uri, render(page).encode())
    return uri


def render(page: Page) -> str:
    """The page as HTML. Everything that comes from outside is escaped."""
    environment = Environment(
        loader=PackageLoader("ganad.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": _number,
        "p": _probability,
        "percent": _percent,
        "count": _count,
    }
    return environment.get_template("template.html.j2").render(page=page)


def _number(value: float | None) -> str:
    """Four digits, also where the last are zeros, so that a column of numbers is even."""
    if value is None:
        return "–"
    return f"{value:#.4g}" if 1e-3 <= abs(value) < 1e3 else f"{value:.4g}"


def _probability(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}"


def _count(value: int) -> str:
    return f"{value:,}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value * 100:.3g}%"
