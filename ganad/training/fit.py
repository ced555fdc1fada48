"""Fit a detector in one process, for a notebook or a script; the job on a cluster is pipelines'.

model = fit("ganomaly", "parts/train", image_size=64, epochs=15)
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from ganad.archive.listing import list_images
from ganad.archive.rows import SCHEMA
from ganad.archive.splits import normal_rows, with_subsets
from ganad.detectors import configure, create
from ganad.detectors.base import StatisticsDetector
from ganad.detectors.gradient import GradientDetector
from ganad.detectors.settings import lay_over, read_config
from ganad.errors import TrainingError
from ganad.images.decode import Decoded, Preprocessing
from ganad.images.inputs import decoded_batches, from_rows
from ganad.images.protocol import Images, Subset
from ganad.images.shards import Shards
from ganad.model import Model
from ganad.report import write_training_page
from ganad.storage import files as storage
from ganad.training.held_out import CHUNK, HeldOut
from ganad.training.maps import fit_maps, fit_scale, keep_maps, moments_of
from ganad.training.record import Record
from ganad.training.trainer import Progress, Trainer

NO_CALIBRATION = "no images are held out for calibration: scores will have no p-values"


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
    made = create(detector, checked).to(device)
    preprocessing = Preprocessing(image_size=checked.image_size, channels=checked.channels)
    pixels, rows = _load(images, preprocessing, drop_abnormal)
    shards, rows = Shards([pixels]), with_subsets(rows, checked.seed)
    train, held_out = _rows_of(rows, "train"), _rows_of(rows, "calibration")
    seen: Images = shards
    facts: dict[str, Any]
    if isinstance(made, GradientDetector):
        folder = None if out is None else storage.join(storage.absolute(out), "training")
        validation = _rows_of(rows, "validation")
        shown = _positions(validation if len(validation) else held_out)
        if made.maps is not None:
            seen = keep_maps(made, shards)
            fit_maps(made, moments_of(made, seen, _positions(train)))
        record = Record(folder, seen, shown, made, pixels=shards)
        chosen = Subset(seen, _positions(train))
        trainer = Trainer(made, chosen, device=device, labels=train["label"].to_pylist())
        for progress in trainer.run():
            record.add(progress)
            if on_progress:
                on_progress(progress)
        record.close()
        fit_scale(made, seen, shown)
        facts = {
            "steps": trainer.total,
            "batch_size": trainer.batch_size,
            "history": record.history,
        }
    else:
        assert isinstance(made, StatisticsDetector)
        facts = {"history": [fit_statistics(made, Subset(shards, _positions(train)))]}
    ids = held_out["image_id"].to_pylist()
    scored = HeldOut.from_images(made, seen, _positions(held_out), ids)
    if not scored.ids:
        warnings.warn(f"{NO_CALIBRATION}; give more training images", stacklevel=2)
    counts = {"num_train": len(train), "num_calibration": len(held_out)}
    model = Model(made.eval(), scored.calibration(), {**counts, **facts})
    if out is not None:
        model.save(out, scored.files())
        write_training_page(out)
    return model


def _rows_of(rows: pa.Table, part: str) -> pa.Table:
    return rows.filter(pc.equal(rows["part"], part))


def _positions(rows: pa.Table) -> np.ndarray:
    return rows["position"].to_numpy()


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


def _load(
    images: Any, preprocessing: Preprocessing, drop_abnormal: bool
) -> tuple[np.ndarray, pa.Table]:
    """All images decoded, uint8 (n, c, h, w), and their rows: image_id, name, label, and position
    in the array. Bad ones are left out, with a warning."""
    rows = None
    if isinstance(images, str | os.PathLike):
        table = pa.Table.from_pylist(list(list_images([os.fspath(images)])), schema=SCHEMA)
        table = normal_rows(table, os.fspath(images), drop_abnormal)
        batches = from_rows(table.to_pylist(), preprocessing)
        rows = table.select(["image_id", "name", "label"])
    else:
        batches = (one[:2] for one in decoded_batches(images, preprocessing))
    decoded: list[Decoded] = []
    ids: list[str] = []
    for batch, its_ids in batches:
        decoded += batch
        ids += its_ids
    if rows is None:
        rows = pa.table({"image_id": ids, "name": ids, "label": pa.nulls(len(ids), pa.string())})
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
    return pixels, rows.take(good).append_column("position", pa.array(range(len(good))))
