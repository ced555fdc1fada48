"""What can be trained, and what a saved model is. Run: ganad detectors, ganad show MODEL"""

from __future__ import annotations

import json

from rich.console import Console
from rich.table import Table

from ganad.detectors import DETECTORS
from ganad.model import load, read_info


def list_detectors() -> None:
    """Print every detector with its paper, and what it is good and bad at."""
    table = Table(box=None, pad_edge=False, show_lines=False)
    for heading in ("detector", "what it does", "paper", "good at", "bad at"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "detector")
    for name, detector in DETECTORS.items():
        table.add_row(name, detector.summary, detector.paper, detector.good_at, detector.bad_at)
    Console().print(table)


def show_model(folder: str) -> None:
    """Print the essentials of a saved model; loading it proves that its files belong together."""
    info = dict(read_info(folder))
    calibration = load(folder).calibration
    training = dict(info["training"])
    history = training.pop("history", [])
    lines = {
        "model": info["id"],
        "parameters": f"{info['num_parameters']:,}",
        "config": json.dumps(info["config"]),
        "preprocessing": json.dumps(info["preprocessing"]),
        **{key: str(value) for key, value in info["facts"].items()},
        **{key.replace("_", " "): str(value) for key, value in training.items()},
    }
    if history:
        lines["last of training"] = json.dumps(history[-1])
    if calibration is None:
        lines["calibration"] = "none: scores have no p-values"
    else:
        for rate in (0.05, 0.01):
            lines[f"threshold at p < {rate}"] = f"{calibration.threshold(rate):.6g}"
        for number, note in enumerate(calibration.notes()):
            lines["note" if number == 0 else f"note {number + 1}"] = note
    lines["versions"] = json.dumps(info["versions"])
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in lines.items():
        table.add_row(key, value)
    Console().print(table)
