"""The figures as Markdown: a table for each kind of row."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipelines.benchmark.gpu.scoring import COMPILED

Figures = Mapping[str, Any]
Cells = dict[str, str]
NOTHING = "–"


def as_markdown(figures: Figures) -> str:
    """The text of gpu.md; see run.gpu for what figures holds."""
    lines, machine = figures["lines"], figures["machine"]
    parts = [
        f"# {machine['device']}",
        ", ".join(f"{key} {value}" for key, value in machine.items() if key != "device"),
        f"```\n{figures['command']}\n```",
        f"{figures['seconds']:,.0f} s in all. Rates are images/s, medians of stretches; peak MiB: "
        f"what tensors had on the GPU at the most.",
    ]
    kinds: dict[str, tuple[str, Callable[[Figures, Sequence[Figures]], Cells]]] = {
        "scoring": (
            "## Scoring\nshare: of the bare compiled forward pass of the same row. decode workers: "
            "processes that decode JPEGs for as many images/s.",
            _scoring,
        ),
        "decoding": ("## Decoding of JPEGs", _decoding),
        "training": ("## Training steps\nbusy: share of the time in which the GPU works.", _steps),
        "search": ("## AnoGAN's search, of untrained networks", _search),
    }
    for kind, (title, cells_of) in kinds.items():
        rows = [
            {**_common(line), **cells_of(line, lines)} for line in lines if line["table"] == kind
        ]
        if rows:
            parts += [title, _table(rows)]
    return "\n\n".join(parts) + "\n"


def _table(rows: Sequence[Cells]) -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row if column != "note"))
    columns += ["note"] if any(row.get("note") for row in rows) else []
    every = [columns, ["---"] * len(columns)]
    every += [[row.get(column, NOTHING) for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in every)


def _common(line: Figures) -> Cells:
    return {
        "row": f"`{line['row']}`",
        "way": line["way"],
        "note": (line["why"] or _compiled_in(line)).replace("|", "\\|"),
    }


def _compiled_in(line: Figures) -> str:
    seconds = line["facts"].get("compile_s")
    return "" if seconds is None else f"compiled in {seconds} s"


def _rate(line: Figures) -> str:
    return NOTHING if line["rate"] is None else _number(line["rate"]["per_s"])


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _peak(line: Figures) -> str:
    peak = None if line["rate"] is None else line["rate"]["peak_mib"]
    return NOTHING if peak is None else f"{peak:,.0f}"


def _times(line: Figures, lines: Sequence[Figures], way: str) -> str:
    """The line's rate as a multiple of that of the way of its row whose name begins like this."""
    others = [
        one["rate"]["per_s"]
        for one in lines
        if one["row"] == line["row"] and one["way"].startswith(way) and one["rate"]
    ]
    return f"{line['rate']['per_s'] / others[0]:.2f}" if line["rate"] and others else NOTHING


def _scoring(line: Figures, lines: Sequence[Figures]) -> Cells:
    facts = line["facts"]
    workers = NOTHING
    if line["rate"] and line["way"].startswith("ganad score,"):
        workers = ", ".join(_workers(line, lines)) or NOTHING
    return {
        "network": f"{facts['network']}, {facts['image_size']} px" if facts else NOTHING,
        "images/s": _rate(line),
        "share": _times(line, lines, COMPILED),
        "peak MiB": _peak(line),
        "decode workers": workers,
    }


def _workers(line: Figures, lines: Sequence[Figures]) -> list[str]:
    """How many for JPEGs of each size, where their decoding to this detector's size is known."""
    return [
        f"{math.ceil(line['rate']['per_s'] / one['rate']['per_s'])} "
        f"({one['facts']['width']}×{one['facts']['height']})"
        for one in lines
        if one["table"] == "decoding"
        and one["rate"]
        and one["facts"].get("side") == line["facts"]["image_size"]
    ]


def _decoding(line: Figures, _: Sequence[Figures]) -> Cells:
    facts = line["facts"]
    if not facts:
        return {}
    kib = f"{facts['bytes'] / 1024:,.0f}"
    return {
        "JPEG": f"{facts['width']}×{facts['height']}",
        "KiB": kib,
        "images/s": _rate(line),
    }


def _steps(line: Figures, lines: Sequence[Figures]) -> Cells:
    facts = line["facts"]
    share, how = facts.get("busy"), facts.get("busy_by", "not measured")
    busy = f"{NOTHING if share is None else f'{share:.2f}'} ({how})"
    return {
        "batch": str(facts.get("batch_size", NOTHING)),
        "images/s": _rate(line),
        "times plain": _times(line, lines, "plain"),
        "busy": busy,
        "peak MiB": _peak(line),
    }


def _search(line: Figures, _: Sequence[Figures]) -> Cells:
    return {
        "steps": str(line["facts"].get("steps", NOTHING)),
        "images/s": _rate(line),
        "peak MiB": _peak(line),
    }
