"""The plans that --dry-run prints: checked as a run checks them, without loading torch or Ray."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ganad.detectors import configure
from ganad.saved import read_info
from ganad.storage import files as storage
from pipelines.train.categories import categories


def print_training(
    detector: str,
    source: Sequence[str],
    out: str,
    *,
    values: Mapping[str, Any],
    workers: int | tuple[int, int] | None,
    add_to: str | None,
) -> None:
    """What ganad train would do. Raises ConfigError for config keys, ModelError for add_to."""
    if add_to is None:
        config = configure(detector, values)
    else:
        from pipelines.train.addition import Base

        config = Base.open(add_to, detector).detector.config
    plan = {
        "detector": detector,
        "config": config.model_dump(mode="json"),
        "source": list(source),
        "out": storage.absolute(out),
        "workers": workers,
        "add_to": add_to,
    }
    print(json.dumps(plan, indent=2))


def print_each_training(
    detector: str, source: Sequence[str], out: str, *, values: Mapping[str, Any]
) -> None:
    """What ganad train --each would do: the folder of each category's model."""
    config = configure(detector, values).model_dump(mode="json")
    _, names = categories(source)
    models = {name: storage.join(storage.absolute(out), name) for name in names}
    print(json.dumps({"detector": detector, "config": config, "models": models}, indent=2))


def print_scoring(
    models: Sequence[str], source: Sequence[str], out: str, *, workers: int | None
) -> None:
    """What ganad score would do. Raises ModelError if a folder is not a model."""
    plan = {
        "models": [read_info(model)["id"] for model in models],
        "source": list(source),
        "out": storage.absolute(out),
        "workers": workers,
    }
    print(json.dumps(plan, indent=2))
