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
from ganad.archive.splits import fold_names, normal_rows, with_subsets
from ganad.detectors import configure, create
from ganad.detectors.base import Detector, StatisticsDetector
from ganad.detectors.gradient import GradientDetector
from ganad.detectors.settings import lay_over, read_config
from ganad.errors import TrainingError
from ganad.images.decode import Decoded, Preprocessing
from ganad.images.inputs import decoded_batches, from_rows
from ganad.images.protocol import Images, Subset, pieces
from ganad.images.shards import Shards
from ganad.model import Model
from ganad.report import write_training_page
from ganad.storage import files as storage
from ganad.training.crossed import SubsetFits, check_folds
from ganad.training.folds import FoldResult, chosen, settle
from ganad.training.held_out import HeldOut
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
    check_folds(checked.calibration_folds, len(rows))
    images, rows = Shards([pixels]), with_subsets(rows, checked.seed, checked.calibration_folds)
    if isinstance(made, GradientDetector):
        folder = None if out is None else storage.join(storage.absolute(out), "training")
        facts, scored = _fit_by_gradient(made, images, rows, folder, on_progress)
    else:
        assert isinstance(made, StatisticsDetector)
        facts, scored = _fit_by_statistics(made, images, rows)
    calibration = scored.calibration(checked.calibration_folds)
    if calibration is None:
        warnings.warn(f"{NO_CALIBRATION}; give more training images", stacklevel=2)
    else:
        facts["calibration"] = calibration.method
    model = Model(made.eval(), calibration, facts)
    if out is not None:
        model.save(out, scored.files())
        write_training_page(out)
    return model


def _fit_by_gradient(
    detector: GradientDetector[Any],
    pixels: Images,
    rows: pa.Table,
    folder: str | None,
    on_progress: Callable[[Progress], None] | None,
) -> tuple[dict[str, Any], HeldOut]:
    """Train, and score the images that calibrate, each by a model that has not trained on it;
    returns what the model records, and the scores."""
    seen, results = keep_maps(detector, pixels), []
    there = set(rows["part"].to_pylist())
    for fold in fold_names(detector.config.calibration_folds):
        if fold not in there:
            continue
        apart = create(detector.name, detector.config)
        assert isinstance(apart, GradientDetector)
        facts, scored = _trained(
            apart.to(detector.device), seen, pixels, rows, fold, None, on_progress
        )
        results.append(FoldResult(fold, scored, apart.scale, facts["history"]))
    facts, scored = _trained(detector, seen, pixels, rows, None, folder, on_progress)
    if results:
        scored = settle(detector, results)
        facts["num_calibration"] = len(scored.ids)
        facts["history"] += [event for one in results for event in one.events]
    return facts, scored


def _trained(
    detector: GradientDetector[Any],
    seen: Images,
    pixels: Images,
    rows: pa.Table,
    fold: str | None,
    folder: str | None,
    on_progress: Callable[[Progress], None] | None,
) -> tuple[dict[str, Any], HeldOut]:
    """One training, without a fold if there is one; what it records, and its held-out images."""
    folds, parts = detector.config.calibration_folds, rows["part"].to_pylist()
    train, held_out, validation = (
        rows.filter(pa.array(chosen(parts, subset, folds, fold)))
        for subset in ("train", "calibration", "validation")
    )
    shown = _positions(validation if len(validation) else held_out)
    if detector.maps is not None:
        fit_maps(detector, moments_of(detector, seen, _positions(train)))
    record = Record(folder, seen, shown, detector, pixels=pixels)
    labels = train["label"].to_pylist()
    trainer = Trainer(
        detector, Subset(seen, _positions(train)), device=detector.device, labels=labels
    )
    for progress in trainer.run():
        record.add(progress)
        if on_progress:
            on_progress(progress)
    record.close()
    fit_scale(detector, seen, shown)
    facts = {
        "num_train": len(train),
        "num_calibration": len(held_out),
        "steps": trainer.total,
        "batch_size": trainer.batch_size,
        "history": record.history,
    }
    return facts, _scored(detector, seen, held_out)


def _fit_by_statistics(
    detector: StatisticsDetector[Any, Any], images: Images, rows: pa.Table
) -> tuple[dict[str, Any], HeldOut]:
    """Fit, and score the images that calibrate, each by a fit that has not seen it; returns what
    the model records, and the scores."""
    fits, begun = SubsetFits(detector), None
    for subset in fits.fitted:
        chosen = Subset(images, _positions(_rows_of(rows, subset)))
        if len(chosen):
            begun = detector.begin(_first(chosen)) if begun is None else begun
            fits.add(subset, _observed(detector, begun, chosen))
    if begun is None:
        raise TrainingError("no training images are left after the split: give more images")
    scored, num_scored = [], sum(len(_rows_of(rows, subset)) for subset in fits.scored)
    for subset in fits.scored:
        its_rows = _rows_of(rows, subset)
        if len(its_rows):
            fits.fit(subset)
            scored.append(_scored(detector, images, its_rows, fits.keeps_vectors, num_scored))
    facts = {
        "num_train": sum(len(_rows_of(rows, subset)) for subset in fits.fitted),
        "num_calibration": num_scored,
        "history": [fits.fit()],
    }
    return facts, HeldOut.merge(scored)


def _rows_of(rows: pa.Table, part: str) -> pa.Table:
    return rows.filter(pc.equal(rows["part"], part))


def _positions(rows: pa.Table) -> np.ndarray:
    return rows["position"].to_numpy()


def _scored(
    detector: Detector[Any],
    images: Images,
    rows: pa.Table,
    keep: bool = True,
    total: int | None = None,
) -> HeldOut:
    ids = rows["image_id"].to_pylist()
    return HeldOut.from_images(detector, images, _positions(rows), ids, keep, total)


def fit_statistics(detector: StatisticsDetector[Any, Any], images: Images) -> dict[str, Any]:
    """Fit by one pass over decoded images, n > 0; returns the detector's own facts."""
    return detector.finish(_observed(detector, detector.begin(_first(images)), images))


def _observed(detector: StatisticsDetector[Any, Any], begun: Any, images: Images) -> Any:
    """The statistics that have begun, with all images added."""
    positions = np.arange(len(images))
    for some in pieces(images, len(images)):
        begun = detector.observe(begun, torch.from_numpy(images.take(positions[some])))
    return begun


def _first(images: Images) -> torch.Tensor:
    first = next(pieces(images, len(images)))
    return torch.from_numpy(images.take(np.arange(first.stop)))


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
