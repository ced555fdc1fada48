"""Writes a trained detector as one file that torch, or ONNX Runtime, runs without ganad.

uint8 images (n, c, S, S), decoded as ganad.images.decode does -> `score` (n,) and, where
the method makes heat maps without gradients, `heat_map` (n, S, S).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ganad.archive.listing import list_images
from ganad.batch import patches
from ganad.detectors.base import Detector
from ganad.engines import onnx, program
from ganad.engines.forward import in_float32, layout_of
from ganad.engines.gate import MIN_IMAGES, Agreement, agreement
from ganad.errors import ArchiveError, ConfigError, EngineError
from ganad.images.load import load_images
from ganad.model import Model, load
from ganad.storage import files as storage

NUM_IMAGES = 64
"""Images on which the file is compared with the model, at most."""
TOLERANCE = 1e-3
"""The largest difference of a score, as a share of the spread of the scores."""
FORMATS: Mapping[str, ModuleType] = {"torch": program, "onnx": onnx}


@dataclass(frozen=True)
class Exported:
    """A file that was written."""

    out: str
    format: str
    outputs: tuple[str, ...]
    """score, or score and heat_map."""
    batch: int | None
    """Images that it takes at a time; None for any number."""
    compared: str
    """On which images it was compared with the model."""
    agreement: Agreement


class WholeImages(nn.Module):
    """uint8 images (n, c, S, S) -> score (n,), and heat maps (n, S, S) if asked for. With patches,
    those of its windows put together."""

    def __init__(self, detector: Detector[Any], maps: bool) -> None:
        super().__init__()
        self.detector, self.maps = detector, maps

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        config = self.detector.config
        patch = config.patch
        found = self.detector.score_batch(self.detector.patches(images), (), self.maps)
        score, maps = found.score.double(), found.maps
        if patch is not None:
            by_image = score.unflatten(0, (images.shape[0], -1))
            score = by_image.topk(patch.num_counted(by_image.shape[1]), dim=1).values.mean(1)
            if maps is not None:
                maps = patches.stitch(maps[:, None], config.image_size, patch)[:, 0]
        # Copies: a score that is part of a map would be one output under two names.
        return (score.clone(),) if maps is None else (score.clone(), maps.float().clone())


def export(folder: str, out: str, format: str | None = None, source: str | None = None) -> Exported:
    """Write the model in the folder to the file `out`, local or on S3.

    format: torch or onnx; left out, the ending of the file says which. The file's scores are
    compared with the model's on images it was trained with, those held out first, or on those of
    `source`; it is written only if ranks and p-values agree as ganad.engines.gate demands and no
    score differs by more than TOLERANCE.

    Raises ConfigError for a format that is not there, EngineError for a detector that no file can
    hold or whose scores come out different, and ArchiveError without images to compare.
    """
    name = _format(out, format)
    module = FORMATS[name]
    model = load(folder)
    detector = model.detector
    if detector.name in module.REFUSED:
        raise EngineError(
            f"{folder}: {detector.name} has operations that {name} lacks: use {_other(name)}"
        )
    maps = _has_maps(detector, folder)
    images, ids, compared = _images(model, folder, source)
    outputs = ("score", "heat_map") if maps else ("score",)
    facts = {"id": model.id, "preprocessing": model.preprocessing.model_dump(mode="json")}
    example = images[np.arange(32) % len(images)]
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / f"model{module.SUFFIX}"
        try:
            with in_float32(detector), detector.scoring():
                forward = WholeImages(detector, maps).eval()
                batch = module.build(forward, example, file, outputs, facts)
            found = _scores(module.load(file), images, batch)
        except Exception as error:  # compilers raise whatever they like
            raise EngineError(
                f"{folder}: {detector.name} cannot be exported as {name} ({_reason(error)}): "
                f"use {_other(name)}"
            ) from error
        agrees = agreement(detector.score(images, ids).score, found, model.calibration)
        if not agrees.passed or not agrees.score_difference <= TOLERANCE:
            raise EngineError(
                f"{folder}: the exported scores of {agrees.n} images differ from the model's (by "
                f"up to {agrees.score_difference:.2g} of their spread, p-values by up to "
                f"{agrees.p_difference:.2g}), so no file is written: train it with --set "
                f"precision=float32"
            )
        storage.write_bytes(storage.absolute(out), file.read_bytes())
    return Exported(out, name, outputs, batch, compared, agrees)


def _format(out: str, typed: str | None) -> str:
    if typed is not None and typed not in FORMATS:
        raise ConfigError(f"--format {typed}: use one of {', '.join(FORMATS)}")
    ending = {module.SUFFIX: name for name, module in FORMATS.items()}
    name = typed or next((of for suffix, of in ending.items() if out.endswith(suffix)), None)
    if name is None or not out.endswith(FORMATS[name].SUFFIX):
        wanted = " or ".join(
            f"{suffix} ({of})" for suffix, of in ending.items() if typed in (None, of)
        )
        raise ConfigError(f"--out {out}: give a file that ends in {wanted}")
    remedy = FORMATS[name].available()
    if remedy is not None:
        raise ConfigError(f"--format {name} needs a library that is not there: {remedy}")
    return name


def _has_maps(detector: Detector[Any], folder: str) -> bool:
    """Raises EngineError for a score that follows gradients or draws noise."""
    with in_float32(detector):
        try:
            layout_of(detector, maps=False)
        except EngineError as error:
            reason = str(error).partition(" while it scores")[0]
            raise EngineError(
                f"{folder}: {reason} while it scores, which no file can hold: score with ganad, or "
                f"export a model of another detector"
            ) from None
        try:
            return layout_of(detector, maps=True).maps
        except EngineError:  # the heat of pooled features is a gradient
            return False


def _images(model: Model, folder: str, source: str | None) -> tuple[Tensor, list[str], str]:
    """uint8 images to compare on, their ids, and which they are."""
    if source is not None:
        rows = list(islice(list_images([source]), NUM_IMAGES))
        remedy = f"give a source with {MIN_IMAGES} images that decode"
    else:
        rows = _training_rows(folder)
        remedy = "give images by --source"
    images, ids, num_held_out = list[np.ndarray](), list[str](), 0
    for start in range(0, len(rows), NUM_IMAGES):
        some = rows[start : start + NUM_IMAGES]
        for row, (one,) in zip(some, load_images(some, [model.preprocessing]), strict=True):
            if one.image is not None and len(images) < NUM_IMAGES:
                images.append(one.image)
                ids.append(row["image_id"])
                num_held_out += row.get("part", "train") != "train"
        if len(images) == NUM_IMAGES or start >= 4 * NUM_IMAGES:  # enough, or all are gone
            break
    if len(images) < MIN_IMAGES:
        where = source if source is not None else f"{folder}: of the images it was trained with,"
        raise ArchiveError(
            f"{where} {len(images)} can be read, and {MIN_IMAGES} are needed to compare the "
            f"exported scores: {remedy}"
        )
    which = source if source is not None else f"of its training, {num_held_out} of them held out"
    return torch.from_numpy(np.stack(images)), ids, f"{len(images)} images {which}"


def _training_rows(folder: str) -> list[dict[str, Any]]:
    """The images that the model was trained with, those held out of the fit first."""
    split = storage.join(storage.absolute(folder), "training", "split.parquet")
    if not storage.exists(split):
        return []
    rows = storage.read_table(split).to_pylist()
    return sorted(rows, key=lambda row: row["part"] == "train")


def _scores(
    run: Callable[[Tensor], Sequence[Tensor]], images: Tensor, batch: int | None
) -> np.ndarray:
    """Scores of the images, float64 (n,): one alone, the others together if the file takes them."""
    sizes = [1] * len(images) if batch == 1 else [1, len(images) - 1]
    return torch.cat([run(some)[0].double() for some in images.split(sizes)]).numpy()


def _reason(error: Exception) -> str:
    cause: BaseException = error
    while cause.__cause__ is not None:  # the first of a chain says what is missing
        cause = cause.__cause__
    lines = (line.strip() for line in str(cause).splitlines())
    return next((line for line in lines if line), type(cause).__name__)[:200].rstrip(".:")


def _other(name: str) -> str:
    return "--format torch --out FILE.pt2" if name != "torch" else "ganad score"
