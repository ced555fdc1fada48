"""Lists the detectors. Run: ganad detectors"""

from __future__ import annotations

import sys

from rich.table import Table

from ganad.detectors import DETECTORS, describe
from pipelines.console.terminal import terminal


def list_detectors() -> None:
    """Print every detector with its summary, paper, strengths and weaknesses."""
    table = Table(box=None, pad_edge=False, show_lines=False)
    for heading in ("detector", "what it does", "paper", "good at", "bad at"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "detector")
    for name in DETECTORS:
        table.add_row(name, *describe(name))
    terminal(sys.stdout).print(table)
