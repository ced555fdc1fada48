"""A trained detector: scoring, saving and loading. ganad.saved has the layout of its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from ganad.calibration import Calibration
from ganad.detectors import configure, find
from ganad.detectors.base import Detector
from ganad.errors import ConfigError, ModelError
from ganad.images.decode import Decoded, Preprocessing
from ganad.images.inputs import decoded_batches
from ganad.saved import REMEDY, WEIGHTS, digest, read_saved, write_saved
from ganad.storage import files as storage
from ganad.storage.frames import to_pandas

FEW = 8
"""Up to so many images, Model.score scores them one by one."""


@dataclass
class ImageScores:
    """What a model says of n images, in their order.

    score: float64 (n,), larger = more anomalous, nan where there is an error.
    p_value: float64 (n,), the share of normal images that look at least as anomalous.
    terms: the parts of the score, each float64 (n,).
    maps: n entries, float32 (h, w) or None.
    errors: n entries, None or why this image has no score.
    names: n entries, the path of an image (archive.tar#member in a tar), or its number.
    """

    score: np.ndarray
    p_value: np.ndarray
    terms: dict[str, np.ndarray]
    maps: list[np.ndarray | None]
    errors: list[str | None]
    names: list[str]

    def __len__(self) -> int:
        return len(self.score)

    def to_arrow(self) -> pa.Table:
        """A row for each image: name, score, p_value, error, and a column for each term. A score
        that is missing is null."""
        columns: dict[str, Any] = {"name": pa.array(self.names, pa.string())}
        numbers = {"score": self.score, "p_value": self.p_value}
        numbers |= {name: term for name, term in self.terms.items() if name not in numbers}
        columns |= {name: pa.array(values, from_pandas=True) for name, values in numbers.items()}
        errors = pa.array(self.errors, pa.string())
        return pa.table({**columns, "error": errors})

    def to_pandas(self) -> Any:
        """The same as a pandas DataFrame. Raises ConfigError without pandas."""
        return to_pandas(self.to_arrow())

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
            [name for part in parts for name in part.names],
        )


@dataclass(repr=False)
class Model:
    """A detector, its calibration, and the facts of its training."""

    detector: Detector[Any]
    calibration: Calibration | None
    training: dict[str, Any] = field(default_factory=dict)
    """Data and split digests, counts, history: whatever the training job recorded."""
    saved: Mapping[str, Any] | None = None
    """Of a loaded model, its model.json. A later version of ganad may know more config keys, with
    defaults that change nothing: the model stays the same one."""

    def __repr__(self) -> str:
        config, calibration = self.detector.config, self.calibration
        colours = "RGB" if config.channels == 3 else "grey"
        num = 0 if calibration is None else len(calibration)
        method = f"calibrated on {num} images" if num else "not calibrated"
        return f"Model({self.id}, {config.image_size} px {colours}, {method})"

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
        return digest(self.detector.name, self._settings, self._weights, self.calibration)

    @property
    def id(self) -> str:
        """`<detector>-<digest>`, the name of the model's partition in a score table."""
        return f"{self.detector.name}-{self.digest}"

    @property
    def info(self) -> dict[str, Any]:
        """What model.json says of the model."""
        return {
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

        Up to FEW images are scored one by one, without filling up a batch, so that nobody waits for
        images that are not there. Their scores equal those of a job to 1e-5 of their size; where
        they would not (in bfloat16, or on a GPU), the batch is filled up.
        """
        detector, parts = self.detector, list[ImageScores]()
        exact = detector.data_type == torch.float32 and detector.device.type == "cpu"
        for decoded, ids, names in decoded_batches(images, self.preprocessing):
            alone = exact and not parts and len(decoded) <= FEW
            step = 1 if alone else len(decoded)
            for start in range(0, len(decoded), step):
                some = slice(start, start + step)
                scores = self.score_decoded(decoded[some], ids[some], maps, pad=not alone)
                parts.append(replace(scores, names=names[some]))
        return ImageScores.concatenate(parts)

    def score_decoded(
        self,
        decoded: Sequence[Decoded],
        ids: Sequence[str],
        maps: bool = False,
        *,
        pad: bool = True,
    ) -> ImageScores:
        """Score images that ganad.images.decode has decoded for this model's preprocessing. Their
        names are their ids. pad: see Detector.score."""
        good = [i for i, one in enumerate(decoded) if one.image is not None]
        score = np.full(len(decoded), np.nan)
        terms: dict[str, np.ndarray] = {}
        found: list[np.ndarray | None] = [None] * len(decoded)
        if good:
            batch = torch.from_numpy(np.stack([decoded[i].image for i in good]))  # type: ignore[misc]
            result = self.detector.score(batch, [ids[i] for i in good], maps, pad=pad)
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
        errors = [one.error for one in decoded]
        return ImageScores(score, p_value, terms, found, errors, list(ids))

    def save(self, folder: str, beside: Mapping[str, bytes] | None = None) -> str:
        """Write the model's folder, and further files by name. Returns the folder's URI."""
        folder = storage.absolute(folder)
        write_saved(folder, self.info, self._weights, self.calibration, beside or {})
        return folder


def load(folder: str, device: str | torch.device = "cpu") -> Model:
    """Load a saved model; raises ModelError if the folder is not one or its files disagree."""
    saved = read_saved(folder)
    info = saved.info
    try:
        detector = find(info["detector"])
        config = configure(info["detector"], info["config"])
    except ConfigError as error:
        raise ModelError(
            f"{folder} cannot be loaded by this version of ganad ({error}): use the version that "
            f"trained it, {info['versions'].get('ganad', 'an earlier one')}, or train it again"
        ) from None
    try:
        needed = detector.num_bytes(config)
        if needed is not None and needed > len(saved.weights):
            raise ValueError(f"{WEIGHTS} is smaller than the networks of its config")
        loaded = detector.from_saved(config)
        loaded.load_state_dict(load_tensors(saved.weights))
    except (ConfigError, RuntimeError, ValueError, SafetensorError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(f"{folder} is damaged ({reason}): {REMEDY}") from None
    model = Model(loaded.eval(), saved.calibration, dict(info["training"]), info)
    loaded.to(device).to(memory_format=torch.channels_last)
    return model
