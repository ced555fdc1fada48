"""Train a detector on normal images. Run: ganad train DETECTOR SOURCE --out MODEL

The model's folder holds, beside the model, MODEL/training: the manifest, the split, decoded images
and checkpoints while training runs, and its record (events, image grids) afterwards. MODEL/
training.html is made of that record. Decoded images are shared by runs where GANAD_CACHE names a
folder for them, see pipelines.train.cache.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from ganad.archive.manifest import Manifest
from ganad.archive.selection import normal_rows, with_parts
from ganad.archive.split import split_digest
from ganad.detectors import configure, create, find
from ganad.detectors.base import Detector, StatisticsDetector
from ganad.detectors.config import DetectorConfig
from ganad.errors import GanadError, TrainingError
from ganad.images.decode import Preprocessing
from ganad.report import write_training_page
from ganad.saved import read_info
from ganad.storage import files as storage
from pipelines.cluster.connection import connected, share
from pipelines.console.progress import say
from pipelines.passes.claim import claim
from pipelines.passes.source import resolve
from pipelines.score.scorer import write_part
from pipelines.train.addition import Base
from pipelines.train.gradient import fit_gradient
from pipelines.train.job import TrainingJob
from pipelines.train.statistics import fit_statistics

MINIMUM_CALIBRATION = 20


def train(
    detector: str,
    source: Sequence[str],
    out: str,
    *,
    values: Mapping[str, Any] | None = None,
    workers: int | tuple[int, int] | None = None,
    gpu: bool | None = None,
    drop_abnormal: bool = False,
    add_to: str | None = None,
    cores: int | None = None,
    debug: bool = False,
) -> dict[str, Any]:
    """Train, calibrate and save a model at out; returns the contents of its model.json.

    values are config keys. add_to is the folder of a fitted Gaussian, whose config and images come
    first: the model is that of a fit to all images together. The same call again goes on where a
    killed one stopped, and does nothing where one has finished. cores: of each worker without a
    GPU; left out, the workers share all.
    """
    find(detector)  # a wrong name is reported first
    base = None if add_to is None else Base.open(add_to, detector)
    config = configure(detector, values or {}) if base is None else base.detector.config
    model = storage.absolute(out)
    is_done = storage.exists(storage.join(model, "model.json"))
    # Made before anything is listed or written, so that missing weights are reported at once.
    unfitted: Detector[Any] | None = None
    if base is not None:
        unfitted = base.detector
    elif not is_done:
        unfitted = create(detector, config)
    folder = storage.join(model, "training")
    manifest = resolve(source, storage.join(folder, "manifest"), out)
    typed = " ".join(source)
    try:
        normal = normal_rows(manifest.table(), typed, drop_abnormal)
    except GanadError:
        if not storage.exists(storage.join(folder, "job.json")):
            # Nothing has begun: the folder is free for the source that was meant.
            storage.remove_folder(storage.join(folder, "manifest"))
        raise
    rows = with_parts(normal, config.seed)
    if base is not None:
        rows = base.new(rows, typed)
    identity = {
        "detector": detector,
        "config": config.model_dump(mode="json"),
        "manifest": manifest.digest,
        "drop_abnormal": drop_abnormal,
        **({} if base is None else {"add_to": base.id}),
    }
    claim(folder, "job.json", identity, out, "give a fresh --out, or the command it began with")
    if is_done:
        say(f"{out} is trained already")
        _tidy(model)
        return dict(read_info(model))
    job = _prepare(detector, config, rows, manifest, model, typed, base)
    with connected(debug):
        began = time.perf_counter()
        if isinstance(unfitted, StatisticsDetector):
            fit_statistics(job, unfitted, share(workers, gpu, cores=cores), base)
        else:
            fit_gradient(job, share(workers, gpu, 1, cores))
    info = dict(read_info(model))
    _tidy(model)
    say(f"trained {info['id']} in {time.perf_counter() - began:,.0f} s; it is in {out}")
    return info


def _tidy(model: str) -> None:
    """Write the page of the run, and leave nothing that only the run itself needed."""
    if not storage.exists(storage.join(model, "training.html")):
        write_training_page(model)
    for name in ("cache", "checkpoints", "uncalibrated"):
        storage.remove_folder(storage.join(model, "training", name))


def _prepare(
    detector: str,
    config: DetectorConfig,
    rows: pa.Table,
    manifest: Manifest,
    model: str,
    typed: str,
    base: Base | None,
) -> TrainingJob:
    """Write the split down, check it, and describe the job."""
    every = rows if base is None else pa.concat_tables([base.rows, rows], promote_options="default")
    parts = Counter(every["part"].to_pylist())
    if not parts["train"]:
        raise TrainingError(
            f"{typed} leaves no image to train on ({len(every)} in all): give more normal images"
        )
    if parts["calibration"] < MINIMUM_CALIBRATION:
        say(
            f"only {parts['calibration']} images are held out for calibration: "
            f"p-values will be coarse"
        )
    uri = storage.join(model, "training", "split.parquet")
    write_part(uri, every)
    if base is not None:
        uri = storage.join(model, "training", "uncalibrated", "added.parquet")
        write_part(uri, rows)
    return TrainingJob(
        detector=detector,
        config=config,
        preprocessing=Preprocessing(image_size=config.image_size, channels=config.channels),
        model=model,
        rows=uri,
        num_rows=len(rows),
        facts={
            "source": manifest.uri,
            "manifest": manifest.digest,
            "split": split_digest(
                zip(every["name"].to_pylist(), every["part"].to_pylist(), strict=True)
            ),
            "num_train": parts["train"],
            "num_calibration": parts["calibration"],
            "num_validation": parts["validation"],
            **({} if base is None else {"added_to": base.id, "num_added": len(rows)}),
        },
    )
