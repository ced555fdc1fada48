"""Fit a detector in one process, for a notebook or a script; the job on a cluster is pipelines'.

model = fit("ganomaly", "parts/train", image_size=64, epochs=15)
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from ganad.archive.listing import list_images
from ganad.archive.rows import SCHEMA
from ganad.archive.selection import normal_rows, with_parts
from ganad.calibration import Calibration
from ganad.detectors import configure, create
from ganad.detectors.base import Detector, GradientDetector, StatisticsDetector
from ganad.detectors.settings import lay_over, read_config
from ganad.errors import TrainingError
from ganad.images.decode import Decoded, Preprocessing
from ganad.images.inputs import decoded_batches, from_rows
from ganad.images.protocol import Images, Subset
from ganad.images.shards import Shards
from ganad.model import Model
from ganad.report import write_training_page
from ganad.training.trainer import Progress, Trainer

CHUNK = 512
"""Images taken out of a long array at a time."""


def fit(
    detector: str,
    images: Any,
    *,
    config: str | os.PathLike[str] | None = None,
    out: str | None = None,
    device: str | torch.device | None = None,
    drop_abnormal: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    **keys: Any,
) -> Model:
    """Fit a detector on normal images and calibrate it on those held out.

    images: a folder, paths, PIL images, an array or a tensor (see Model.score).
    keys: of the detector, such as epochs=15 or backbone={"name": "resnet18", "weights": "random"}.
    config: a preset of the detector, such as "paper", or a TOML file; keys go over it. The same
    keys give the model that `ganad train --set` and `--config` give.
    out: a folder to save the model to, with training.html, the page of its training.
    Raises ConfigError for a wrong key and TrainingError for images that cannot train.
    """
    values: dict[str, Any] = {}
    if config is not None:
        values = read_config(detector, config, "config=")
    lay_over(values, keys)
    checked = configure(detector, values)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = create(detector, checked)
    preprocessing = Preprocessing(image_size=checked.image_size, channels=checked.channels)
    pixels, names, labels = _load(images, preprocessing, drop_abnormal)
    shards, rows = Shards([pixels]), _split(names, checked.seed)
    train, held_out = _positions(rows, "train"), _positions(rows, "calibration")
    history: list[dict[str, Any]] = []
    if isinstance(model, GradientDetector):
        trainer = Trainer(
            model, Subset(shards, train), device=device, labels=[labels[i] for i in train]
        )
        for progress in trainer.run():
            if progress.epoch_ended:
                history.append({"epoch": progress.epoch, "step": progress.step, **progress.losses})
            history += [{"step": progress.step, "event": event} for event in progress.events]
            if on_progress:
                on_progress(progress)
    else:
        assert isinstance(model, StatisticsDetector)
        history.append(fit_statistics(model.to(device), Subset(shards, train)))
    calibration = calibrate(model, shards, held_out, [names[i] for i in held_out])
    facts = {"num_train": len(train), "num_calibration": len(held_out), "history": history}
    fitted = Model(model.eval(), calibration, facts)
    if out is not None:
        fitted.save(out)
        write_training_page(out)
    return fitted


def _split(names: list[str], seed: int) -> pa.Table:
    positions = pa.array(range(len(names)), pa.int64())
    return with_parts(pa.table({"name": names, "image_id": names, "position": positions}), seed)


def _positions(rows: pa.Table, part: str) -> np.ndarray:
    return rows.filter(pc.equal(rows["part"], part))["position"].to_numpy()


def fit_statistics(detector: StatisticsDetector[Any, Any], images: Images) -> dict[str, Any]:
    """Fit by one pass over decoded images, in this process; returns the detector's own facts."""
    if len(images) == 0:
        raise TrainingError("no training images are left after the split: give more images")
    statistics = None
    for start in range(0, len(images), CHUNK):
        chunk = torch.from_numpy(images.take(np.arange(start, min(start + CHUNK, len(images)))))
        if statistics is None:
            statistics = detector.begin(chunk)
        statistics = detector.observe(statistics, chunk)
    return detector.finish(statistics)


def calibrate(
    detector: Detector[Any], images: Images, positions: np.ndarray, ids: Sequence[str]
) -> Calibration | None:
    """Score held-out normal images; None, with a warning, if there are none."""
    if len(positions) == 0:
        warnings.warn(
            "no images were held out for calibration, so scores will have no p-values: "
            "give more training images",
            stacklevel=2,
        )
        return None
    scores = []
    for start in range(0, len(positions), CHUNK):
        chunk = torch.from_numpy(images.take(positions[start : start + CHUNK]))
        scores.append(detector.score(chunk, ids[start : start + CHUNK]).score)
    return Calibration(np.concatenate(scores), tuple(ids))


def _load(
    images: Any, preprocessing: Preprocessing, drop_abnormal: bool
) -> tuple[np.ndarray, list[str], list[str | None]]:
    """All images decoded, uint8 (n, c, h, w), their names and labels; bad ones are left out,
    aloud."""
    if isinstance(images, str | os.PathLike):
        table = pa.Table.from_pylist(list(list_images([os.fspath(images)])), schema=SCHEMA)
        table = normal_rows(table, os.fspath(images), drop_abnormal)
        batches = from_rows(table.to_pylist(), preprocessing)
    else:
        table, batches = None, decoded_batches(images, preprocessing)
    decoded: list[Decoded] = []
    names: list[str] = []
    for some, ids in batches:
        decoded += some
        names += ids
    labels: list[str | None] = [None] * len(decoded)
    if table is not None:
        names, labels = table["name"].to_pylist(), table["label"].to_pylist()
    good = [i for i, one in enumerate(decoded) if one.image is not None]
    if len(good) < len(decoded):
        first = next(one.error for one in decoded if one.error)
        warnings.warn(
            f"{len(decoded) - len(good)} of {len(decoded)} images cannot be read and are left "
            f"out; the first: {first}",
            stacklevel=3,
        )
    if not good:
        raise TrainingError("none of the images can be read: give images that decode")
    pixels = np.stack([decoded[i].image for i in good])  # type: ignore[misc]
    return pixels, [names[i] for i in good], [labels[i] for i in good]
