"""Renders templates as HTML with escaped text and uniform number formats."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(template: str, page: Any, package: str = "ganad.report") -> str:
    """Render a template of a package with the data of its page."""
    environment = Environment(
        loader=PackageLoader(package, "."),
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
    return environment.get_template(template).render(page=page)


def _number(value: float | None) -> str:
    """Four significant digits, including trailing zeros, so that columns of numbers align."""
    if value is None:
        return "–"
    return f"{value:#.4g}" if 1e-3 <= abs(value) < 1e3 else f"{value:.4g}"


def _probability(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}"


def _count(value: int) -> str:
    return f"{value:,}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value * 100:.3g}%"
