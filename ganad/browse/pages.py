"""The HTML of the pages. Everything that comes from outside is escaped by the templates."""

from __future__ import annotations

from typing import Any

from ganad.browse.selection import ERRORS, PAGE_SIZES, VERDICTS, Selection
from ganad.report.rendering import render

_PACKAGE = "ganad.browse"


def grid(*, selection: Selection, num_cards: int, **facts: Any) -> str:
    """The grid. groups: rows of each card, the first of which is shown."""
    num_pages = max(1, -(-num_cards // selection.size))
    page = {
        "selection": selection,
        "num_cards": num_cards,
        "num_pages": num_pages,
        "sizes": PAGE_SIZES,
        "errors": ERRORS,
        "verdicts": VERDICTS,
        **facts,
    }
    return render("grid.html.j2", page, _PACKAGE)


def image(**facts: Any) -> str:
    """One image, under all models."""
    return render("image.html.j2", facts, _PACKAGE)


def similar(**facts: Any) -> str:
    """The part of the image's page that shows typical images like it."""
    return render("similar.html.j2", facts, _PACKAGE)


def problem(message: str) -> str:
    """A sentence for the user, and the way back."""
    return render("problem.html.j2", {"message": message, "title": "ganad browse"}, _PACKAGE)
