"""Writes reports: self-contained HTML pages on a score table or a training run."""

from __future__ import annotations

from ganad.report.rendering import render as render_template
from ganad.report.score_page import ScorePage, gather_score_page
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
    """Write the page of a score table, with all models or those whose id begins with `model`.

    provider(table, model id) returns the function that computes anomaly maps for rows; by default
    it loads the model recorded in the table, and None omits the maps. Returns the file's URI.
    """
    page = gather_score_page(table, num_worst, model, provider)
    uri = storage.absolute(out)
    storage.write_bytes(uri, render(page).encode())
    return uri


def render(page: ScorePage) -> str:
    """The page as HTML; all text in it is escaped."""
    return render_template("score_page.html.j2", page)
