"""Summarises a saved model or a score table. Run: ganad show MODEL or TABLE"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from ganad.detectors import configure
from ganad.errors import ConfigError
from ganad.saved import read_saved
from ganad.scores.files import JOB, OLD_JOB
from ganad.storage import files as storage
from pipelines.console.output import write_facts
from pipelines.passes.engines import described


def show(folder: str) -> None:
    """Print a summary of a saved model, or of a finished or unfinished score table."""
    uri = storage.absolute(folder)
    names = storage.list_names(uri)
    is_table = {JOB, OLD_JOB} & set(names) and "training" not in names
    if is_table or any(name.startswith("model=") for name in names):
        from ganad.scores.table import ScoreTable
        from pipelines.cli.show_table import lines_of_table

        lines = lines_of_table(ScoreTable(folder))
    else:
        lines = _lines_of_model(folder)
    write_facts(lines, sys.stdout)


def _lines_of_model(folder: str) -> list[tuple[str, str]]:
    saved = read_saved(folder)
    info, calibration = saved.info, saved.calibration
    training = dict(info["training"])
    history = training.pop("history", [])
    trials = {name: training.pop(name, []) for name in ("backbone_trials", "scoring_trials")}
    lines = {
        "model": info["id"],
        "parameters": f"{info['num_parameters']:,}",
        "config": _differences(info["detector"], info["config"]) or "all defaults",
        "preprocessing": _text(info["preprocessing"]),
        **_facts(info["facts"]),
        **_facts(training),
        **{
            f"{name.removesuffix('_trials')} by {trial['engine']}": described(trial)
            for name, tried in trials.items()
            for trial in tried
        },
    }
    epochs = [entry for entry in history if "event" not in entry]
    if epochs and epochs[-1] != info["facts"]:
        lines["last of training"] = _text(epochs[-1])
    events = [f"step {entry['step']}: {entry['event']}" for entry in history if "event" in entry]
    if events:
        lines["warnings"] = f"{len(events)}, the last at {events[-1]}"
    if calibration is None:
        lines["calibration"] = "none: scores have no p-values"
    else:
        lines["calibration"] = calibration.method
        for rate in (0.05, 0.01):
            if rate * (len(calibration) + 1) >= 1:  # otherwise the notes report too few images
                lines[f"threshold at p < {rate}"] = f"{calibration.threshold(rate):.6g}"
        for number, note in enumerate(calibration.notes()):
            lines["note" if number == 0 else f"note {number + 1}"] = note
    lines["versions"] = _text(info["versions"])
    return list(lines.items())


def _facts(values: Mapping[str, Any]) -> dict[str, str]:
    """One line per value; a mapping of mappings, such as levels, gets one line per entry."""
    lines: dict[str, str] = {}
    for key, value in values.items():
        name = key.replace("_", " ")
        if isinstance(value, Mapping) and all(isinstance(v, Mapping) for v in value.values()):
            lines |= {f"{name}: {inner}": _text(v) for inner, v in value.items()}
        else:
            lines[name] = _text(value)
    return lines


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _differences(detector: str, config: Mapping[str, Any]) -> str:
    """The keys that differ from the detector's defaults."""
    try:
        defaults = _flat(configure(detector, {}).model_dump(mode="json"))
    except ConfigError:  # a key without a default, such as weights
        defaults = {}
    return ", ".join(
        f"{key}={json.dumps(value)}" if not isinstance(value, str) else f"{key}={value}"
        for key, value in _flat(config).items()
        if key not in defaults or defaults[key] != value
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
