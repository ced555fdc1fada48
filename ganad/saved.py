"""The folder of a saved model, read and checked without torch. It holds no pickle.

MODEL/model.safetensors      weights and statistics
MODEL/calibration.parquet    scores of held-out normal images
MODEL/held_out.parquet       what is kept of these images, where images can be added later
MODEL/heat.parquet           how high the heat maps of these images go, if there are maps
MODEL/model.json             what it is and was trained on; written last

A changed byte in any of them is found: the model's id covers what a score depends on, model.json
has checksums of the other files and of itself.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, model_validator
from pydantic_core import from_json, to_json

from ganad import __version__
from ganad.calibration import Calibration
from ganad.errors import ArchiveError, GanadError, ModelError
from ganad.storage import files as storage
from ganad.storage.records import Record, read_record, write_record
from ganad.storage.retry import why

FORMAT = 2
"""1: the same without checksums."""
VERSIONED = ("torch", "timm", "numpy", "pillow", "pyarrow", "scikit-learn")
WEIGHTS, CALIBRATION = "model.safetensors", "calibration.parquet"
REMEDY = "train the model again"


class ModelRecord(Record):
    """The contents of model.json."""

    format: int = Field(ge=1, le=FORMAT)
    id: str = Field(pattern=r"^[a-z0-9_]+-[0-9a-f]{12}$")
    """`<detector>-<digest>`, the name of the model's partition in a score table."""
    detector: str
    config: dict[str, Any]
    preprocessing: dict[str, Any]
    num_parameters: int = Field(ge=0)
    num_calibration: int = Field(ge=0)
    facts: dict[str, Any]
    """What the detector says of itself."""
    training: dict[str, Any]
    """What the training recorded: data and split, counts, history."""
    versions: dict[str, str]
    """Of Python and of the libraries that scores depend on."""
    files: dict[str, str] = {}
    """Checksums of the files beside the weights, which the id covers."""
    checksum: str | None = None
    """Of this record itself."""

    @model_validator(mode="after")
    def _has_checksums(self) -> Self:
        if self.format > 1 and self.checksum is None:
            raise ValueError("it has no checksum")
        return self


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


def write_saved(
    folder: str,
    info: Mapping[str, Any],
    weights: bytes,
    calibration: Calibration | None,
    beside: Mapping[str, bytes],
) -> None:
    """Write the files of a model, model.json last. info: its fields but for format, files and
    checksum. beside: further files by name."""
    files = dict(beside)
    if calibration is not None:
        sink = pa.BufferOutputStream()
        pq.write_table(calibration.to_table(), sink)
        files[CALIBRATION] = sink.getvalue().to_pybytes()
    storage.write_bytes(storage.join(folder, WEIGHTS), weights)
    for name, data in files.items():
        storage.write_bytes(storage.join(folder, name), data)
    checksums = {name: _checksum(data) for name, data in files.items()}
    # A score that is not a number, in the history of a training, is null in JSON.
    values = from_json(to_json({**info, "versions": versions()}, inf_nan_mode="null"))
    record = ModelRecord(format=FORMAT, files=checksums, checksum="", **values)
    write_record(storage.join(folder, "model.json"), record)


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
        record = read_record(file, ModelRecord, REMEDY, ModelError)
    except ArchiveError as error:
        raise_if_transient(error)
        raise ModelError(f"{folder}/model.json cannot be read: {REMEDY}") from None
    except ModelError as error:
        raise ModelError(f"{folder}/model.json{str(error).removeprefix(file)}") from None
    return record.model_dump(exclude={"checksum"})


def read_saved(folder: str) -> SavedModel:
    """Read a model's files; raises ModelError if one is missing or they do not belong together."""
    info = read_info(folder)
    calibration = None
    weights = read_part(folder, info, WEIGHTS)
    if info["num_calibration"]:
        data = read_part(folder, info, CALIBRATION)
        try:
            calibration = Calibration.from_table(pq.read_table(pa.BufferReader(data)))
        except (GanadError, pa.ArrowException, OSError, ValueError) as error:
            raise ModelError(f"{folder} is damaged ({_in_one_line(error)}): {REMEDY}") from None
    settings = {name: info[name] for name in ("config", "preprocessing")}
    found = f"{info['detector']}-{digest(info['detector'], settings, weights, calibration)}"
    if found != info["id"]:
        raise ModelError(
            f"{folder} holds files that do not belong together (they make {found}, model.json says "
            f"{info['id']}): {REMEDY}"
        )
    return SavedModel(info, weights, calibration)


def read_part(folder: str, info: Mapping[str, Any], name: str) -> bytes:
    """A file of the model, compared with its checksum if model.json has one. Raises ModelError."""
    try:
        data = storage.read_bytes(storage.join(storage.absolute(folder), name))
    except ArchiveError as error:
        raise_if_transient(error)
        raise ModelError(f"{folder} is damaged ({_in_one_line(error)}): {REMEDY}") from None
    if name in info["files"] and _checksum(data) != info["files"][name]:
        raise ModelError(f"{folder} is damaged ({name} has changed): {REMEDY}")
    return data


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that scores depend on."""
    found = {"python": platform.python_version(), "ganad": __version__}
    for name in VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


def raise_if_transient(error: Exception) -> None:
    """Raise the error if it says nothing about the model's files: storage is away for a while."""
    reason = why(error)
    if reason is not None and reason.transient:
        raise error


def _checksum(data: bytes) -> str:
    """16 hex characters."""
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _in_one_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
