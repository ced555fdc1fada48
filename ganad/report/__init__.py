"""The report: one HTML file to look at, which needs nothing but itself."""

from __future__ import annotations

from ganad.report.rendering import render as render_template
from ganad.report.score_page import Page, gather
from ganad.report.training_page import write_training_page
from ganad.scores.refetch import Provider, map_provider
from ganad.scores.table import ScoreTable
from ganad.storage import files as storage

__all__ = ["write_report", "write_training_page"]


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
    return render_template("score_page.html.j2", page)
