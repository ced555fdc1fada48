"""Prints the plans of --dry-run, checked like a real run but without loading torch or Ray."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ganad.detectors import configure
from ganad.storage import files as storage
from pipelines.train.categories import split
from pipelines.train.request import TrainRequest


def print_training(request: TrainRequest) -> None:
    """Print the plan of ganad train. Raises ConfigError for config keys, ModelError for add_to."""
    if request.add_to is None:
        config = configure(request.detector, request.values)
    else:
        from pipelines.train.addition import Start

        config = Start.of(request).config
    plan = {
        "detector": request.detector,
        "config": config.model_dump(mode="json"),
        "source": list(request.sources),
        "out": storage.absolute(request.out),
        "workers": request.workers,
        "add_to": request.add_to,
    }
    print(json.dumps(plan, indent=2))


def print_each_training(request: TrainRequest) -> None:
    """Print the plan of ganad train --each, with the folder of each category's model."""
    requests = split(request)
    config = configure(request.detector, request.values).model_dump(mode="json")
    models = {name: each.out for name, each in requests.items()}
    plan = {"detector": request.detector, "config": config, "models": models}
    print(json.dumps(plan, indent=2))


def print_scoring(
    models: Sequence[str], source: Sequence[str], out: str, *, workers: int | None
) -> None:
    """Print the plan of ganad score. Raises ModelError if a folder is not a model."""
    from ganad.saved import read_info

    plan = {
        "models": [read_info(model)["id"] for model in models],
        "source": list(source),
        "out": storage.absolute(out),
        "workers": workers,
    }
    print(json.dumps(plan, indent=2))
