"""A trained detector: in memory, and on disk as a folder that holds no pickle.

MODEL/model.safetensors      weights and statistics
MODEL/calibration.parquet    scores of held-out normal images
MODEL/model.json             what it is and was trained on; written last
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from ganad import __version__
from ganad.calibration import Calibration
from ganad.detectors import configure, find
from ganad.detectors.base import Detector
from ganad.errors import ArchiveError, GanadError, ModelError
from ganad.images.decode import Decoded, Preprocessing
from ganad.images.inputs import decoded_batches
from ganad.storage import files as storage
from ganad.storage.retry import why

FORMAT = 1
VERSIONED = ("torch", "timm", "numpy", "pillow", "pyarrow", "scikit-learn")


@dataclass
class ImageScores:
    """What a model says of n images, in their order.

    score: float64 (n,), larger = more anomalous, nan where there is an error.
    p_value: float64 (n,), the share of normal images that look at least as anomalous.
    terms: the parts of the score, each float64 (n,).
    maps: n entries, float32 (h, w) or None.
    errors: n entries, None or why this image has no score.
    """

    score: np.ndarray
    p_value: np.ndarray
    terms: dict[str, np.ndarray]
    maps: list[np.ndarray | None]
    errors: list[str | None]

    def __len__(self) -> int:
        return len(self.score)

    @staticmethod
    def concatenate(parts: Sequence[ImageScores]) -> ImageScores:
        """Join the scores of consecutive batches; a batch without any good image has no terms."""
        names = list(dict.fromkeys(name for part in parts for name in part.terms))
        return ImageScores(
            np.concatenate([part.score for part in parts]),
            np.concatenate([part.p_value for part in parts]),
            {
                name: np.concatenate(
                    [part.terms.get(name, np.full(len(part), np.nan)) for part in parts]
                )
                for name in names
            },
            [one for part in parts for one in part.maps],
            [error for part in parts for error in part.errors],
        )


@dataclass
class Model:
    """A detector, its calibration, and the facts of its training."""

    detector: Detector[Any]
    calibration: Calibration | None
    training: dict[str, Any] = field(default_factory=dict)
    """Data and split digests, counts, history: whatever the training job recorded."""
    saved: Mapping[str, Any] | None = None
    """Of a loaded model, its model.json. A later version of ganad may know more config keys, with
    defaults that change nothing: the model stays the same one."""

    @property
    def preprocessing(self) -> Preprocessing:
        config = self.detector.config
        return Preprocessing(image_size=config.image_size, channels=config.channels)

    @cached_property
    def _weights(self) -> bytes:
        tensors = {
            name: tensor.detach().cpu().contiguous().clone()
            for name, tensor in self.detector.state_dict().items()
        }
        return save_tensors(tensors)

    @property
    def _settings(self) -> dict[str, Any]:
        if self.saved is not None:
            return {name: self.saved[name] for name in ("config", "preprocessing")}
        return {
            "config": self.detector.config.model_dump(mode="json"),
            "preprocessing": self.preprocessing.model_dump(mode="json"),
        }

    @cached_property
    def digest(self) -> str:
        """12 hex characters over all that a score or p-value depends on."""
        digest = hashlib.blake2b(digest_size=6)
        identity = [self.detector.name, *self._settings.values()]
        digest.update(json.dumps(identity, sort_keys=True).encode())
        digest.update(self._weights)
        if self.calibration is not None:
            digest.update(np.ascontiguousarray(self.calibration.scores).tobytes())
        return digest.hexdigest()

    @property
    def id(self) -> str:
        """`<detector>-<digest>`, the name of the model's partition in a score table."""
        return f"{self.detector.name}-{self.digest}"

    @property
    def info(self) -> dict[str, Any]:
        """The contents of model.json."""
        return {
            "format": FORMAT,
            "id": self.id,
            "detector": self.detector.name,
            **self._settings,
            "num_parameters": sum(p.numel() for p in self.detector.parameters()),
            "num_calibration": 0 if self.calibration is None else len(self.calibration.scores),
            "facts": self.detector.facts(),
            "training": self.training,
        }

    def score(self, images: Any, maps: bool = False) -> ImageScores:
        """Score a path, folder, PIL image, array or tensor, or a list of paths or PIL images.

        Arrays and tensors are uint8 in 0..255 or floats in 0..1, shaped (n, c, h, w) or (c, h, w).
        A bad image gets an error, not an exception.
        """
        parts = [
            self.score_decoded(decoded, ids, maps)
            for decoded, ids in decoded_batches(images, self.preprocessing)
        ]
        return ImageScores.concatenate(parts)

    def score_decoded(
        self, decoded: Sequence[Decoded], ids: Sequence[str], maps: bool = False
    ) -> ImageScores:
        """Score images that ganad.images.decode has decoded for this model's preprocessing."""
        good = [i for i, one in enumerate(decoded) if one.image is not None]
        score = np.full(len(decoded), np.nan)
        terms: dict[str, np.ndarray] = {}
        found: list[np.ndarray | None] = [None] * len(decoded)
        if good:
            batch = torch.from_numpy(np.stack([decoded[i].image for i in good]))  # type: ignore[misc]
            result = self.detector.score(batch, [ids[i] for i in good], maps)
            score[good] = result.score
            for name, term in result.terms.items():
                terms[name] = np.full(len(decoded), np.nan)
                terms[name][good] = term
            if result.maps is not None:
                for i, one in zip(good, result.maps, strict=True):
                    found[i] = one
        if self.calibration is None:
            p_value = np.full(len(decoded), np.nan)
        else:
            p_value = self.calibration.p_values(score)
        return ImageScores(score, p_value, terms, found, [one.error for one in decoded])

    def save(self, folder: str) -> str:
        """Write the model's folder; model.json comes last. Returns the folder's URI."""
        folder = storage.absolute(folder)
        storage.write_bytes(storage.join(folder, "model.safetensors"), self._weights)
        if self.calibration is not None:
            sink = pa.BufferOutputStream()
            pq.write_table(self.calibration.to_table(), sink)
            data = sink.getvalue().to_pybytes()
            storage.write_bytes(storage.join(folder, "calibration.parquet"), data)
        storage.write_json(
            storage.join(folder, "model.json"), {**self.info, "versions": versions()}
        )
        return folder


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that scores depend on."""
    found = {"python": platform.python_version(), "ganad": __version__}
    for name in VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


def read_info(folder: str) -> Mapping[str, Any]:
    """model.json of a saved model; raises ModelError if the folder is not one."""
    uri = storage.absolute(folder)
    if not storage.exists(uri):
        raise ModelError(f"{folder} does not exist: give a folder that ganad train wrote")
    file = storage.join(uri, "model.json")
    if not storage.exists(file):
        raise ModelError(
            f"{folder} is no saved model, for it has no model.json: give a folder that ganad train "
            f"finished, or run the same train command again to finish it"
        )
    try:
        info = storage.read_json(file)
    except ArchiveError as error:
        _raise_if_passing(error)
        raise ModelError(f"{folder}/model.json cannot be read: train the model again") from None
    if not isinstance(info, dict) or info.get("format") != FORMAT:
        raise ModelError(
            f"{folder} has a format that this version of ganad does not know: train the model again"
        )
    return info


def _raise_if_passing(error: Exception) -> None:
    """Storage that is away for a while says nothing about the model's files."""
    reason = why(error)
    if reason is not None and reason.transient:
        raise error


def load(folder: str, device: str | torch.device = "cpu") -> Model:
    """Load a saved model; raises ModelError if the folder is not one or its files disagree."""
    info = read_info(folder)
    uri = storage.absolute(folder)
    detector = find(info["detector"]).from_saved(configure(info["detector"], info["config"]))
    calibration = None
    try:
        detector.load_state_dict(
            load_tensors(storage.read_bytes(storage.join(uri, "model.safetensors")))
        )
        if info["num_calibration"]:
            table = storage.read_table(storage.join(uri, "calibration.parquet"))
            calibration = Calibration.from_table(table)
    except (GanadError, OSError, RuntimeError, ValueError, SafetensorError) as error:
        _raise_if_passing(error)
        reason = str(error).splitlines()[0]
        raise ModelError(f"{folder} is damaged ({reason}): train the model again") from None
    model = Model(detector.eval(), calibration, dict(info["training"]), info)
    if model.id != info["id"]:
        raise ModelError(
            f"{folder} holds files that do not belong together (they make {model.id}, model.json "
            f"says {info['id']}): train the model again"
        )
    detector.to(device).to(memory_format=torch.channels_last)
    return model
