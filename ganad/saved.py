"""The folder of a saved model, read and checked without torch. It holds no pickle.

MODEL/model.safetensors      weights and statistics
MODEL/calibration.parquet    scores of held-out normal images
MODEL/model.json             what it is and was trained on; written last
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from ganad import __version__
from ganad.calibration import Calibration
from ganad.errors import ArchiveError, GanadError, ModelError
from ganad.storage import files as storage
from ganad.storage.retry import why

FORMAT = 1
VERSIONED = ("torch", "timm", "numpy", "pillow", "pyarrow", "scikit-learn")


@dataclass(frozen=True)
class SavedModel:
    """The files of a model's folder, which belong together."""

    info: Mapping[str, Any]
    """The contents of model.json."""
    weights: bytes
    """The contents of model.safetensors."""
    calibration: Calibration | None


def digest(
    detector: str, settings: Mapping[str, Any], weights: bytes, calibration: Calibration | None
) -> str:
    """12 hex characters over everything that a score or p-value depends on.

    settings: the entries config and preprocessing of model.json, in this order.
    """
    hashed = hashlib.blake2b(digest_size=6)
    hashed.update(json.dumps([detector, *settings.values()], sort_keys=True).encode())
    hashed.update(weights)
    if calibration is not None:
        hashed.update(np.ascontiguousarray(calibration.scores).tobytes())
    return hashed.hexdigest()


def read_info(folder: str) -> Mapping[str, Any]:
    """model.json of a saved model; raises ModelError if the folder is not one."""
    uri = storage.absolute(folder)
    if not storage.exists(uri):
        raise ModelError(f"{folder} does not exist: give a folder that ganad train wrote")
    file = storage.join(uri, "model.json")
    if not storage.exists(file):
        raise ModelError(
            f"{folder} is not a saved model: it has no model.json. Give a folder that ganad train "
            f"finished, or run the same train command again to finish it"
        )
    try:
        info = storage.read_json(file)
    except ArchiveError as error:
        _raise_if_transient(error)
        raise ModelError(f"{folder}/model.json cannot be read: train the model again") from None
    if not isinstance(info, dict) or info.get("format") != FORMAT:
        raise ModelError(
            f"{folder} has a format that this version of ganad does not know: train the model again"
        )
    return info


def read_saved(folder: str) -> SavedModel:
    """Read a model's files; raises ModelError if one is missing or they do not belong together."""
    info = read_info(folder)
    uri = storage.absolute(folder)
    calibration = None
    try:
        weights = storage.read_bytes(storage.join(uri, "model.safetensors"))
        if info["num_calibration"]:
            table = storage.read_table(storage.join(uri, "calibration.parquet"))
            calibration = Calibration.from_table(table)
    except (GanadError, OSError, ValueError) as error:
        _raise_if_transient(error)
        reason = str(error).splitlines()[0]
        raise ModelError(f"{folder} is damaged ({reason}): train the model again") from None
    settings = {name: info[name] for name in ("config", "preprocessing")}
    found = f"{info['detector']}-{digest(info['detector'], settings, weights, calibration)}"
    if found != info["id"]:
        raise ModelError(
            f"{folder} holds files that do not belong together (they make {found}, model.json says "
            f"{info['id']}): train the model again"
        )
    return SavedModel(info, weights, calibration)


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that scores depend on."""
    found = {"python": platform.python_version(), "ganad": __version__}
    for name in VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


def _raise_if_transient(error: Exception) -> None:
    """Storage that is away for a while says nothing about the model's files."""
    reason = why(error)
    if reason is not None and reason.transient:
        raise error
