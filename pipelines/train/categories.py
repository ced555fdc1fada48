"""The category folders of `ganad train --each`, found without Ray or torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ganad.detectors import configure
from ganad.errors import ConfigError
from ganad.storage import files as storage
from pipelines.train.request import TrainRequest


def categories(source: Sequence[str]) -> tuple[str, list[str]]:
    """The folder that source names, and the folders in it; raises ConfigError without any."""
    if len(source) != 1:
        raise ConfigError(f"{' '.join(source)} names several sources: give --each one folder")
    folder = storage.absolute(source[0])
    names = [name for name in storage.list_folders(folder) if not name.startswith(".")]
    if {"train", "test"} & set(names):
        raise ConfigError(
            f"{source[0]} is a category itself: it has a folder train or test. Leave --each out, "
            f"or give the folder above it"
        )
    if not names:
        raise ConfigError(
            f"{source[0]} holds no folders: give the folder that holds one for each category"
        )
    return folder, names


def split(request: TrainRequest) -> dict[str, TrainRequest]:
    """A request for each category: folder name -> request. Raises ConfigError."""
    # Checked here, and paths in it made absolute: tasks have another working directory.
    values = configure(request.detector, request.values).model_dump(mode="json")
    folder, names = categories(request.sources)
    out = storage.absolute(request.out)
    return {
        name: replace(
            request,
            sources=(storage.join(folder, name),),
            out=storage.join(out, name),
            values=values,
        )
        for name in names
    }
