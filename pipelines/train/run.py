"""Train a detector on normal images. Run: ganad train DETECTOR SOURCE --out MODEL

The model's folder holds, beside the model, MODEL/training: the manifest, the split, decoded images
and checkpoints while training runs, and its record (events, image grids) afterwards. MODEL/
training.html is made from that record. Runs share decoded images if GANAD_CACHE names a folder for
them, see pipelines.train.cache.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ganad.archive.manifest import Manifest
from ganad.archive.splits import normal_rows, split_digest, with_subsets
from ganad.detectors.base import StatisticsDetector
from ganad.errors import GanadError, TrainingError
from ganad.images.decode import Preprocessing
from ganad.report import write_training_page
from ganad.saved import read_info
from ganad.storage import files as storage
from ganad.training.crossed import check_folds
from pipelines.cluster.connection import allocate, connected
from pipelines.console.progress import say
from pipelines.passes.claim import claim
from pipelines.passes.engines import EAGER, check_engine
from pipelines.passes.listing import resolve
from pipelines.train.addition import Start
from pipelines.train.engines import choose_backbone
from pipelines.train.gradient import fit_gradient
from pipelines.train.job import FOLDS, TrainingJob
from pipelines.train.request import TrainRequest
from pipelines.train.statistics import fit_statistics

MINIMUM_CALIBRATION = 20
"""Held-out images below which a training says that p-values will be coarse."""


def train(request: TrainRequest, debug: bool = False) -> dict[str, Any]:
    """Train, calibrate and save a model; returns the contents of its model.json.

    The same call again continues where a killed one stopped, and does nothing where one has
    finished.
    """
    check_engine(request.engine)
    model = storage.absolute(request.out)
    is_done = storage.exists(storage.join(model, "model.json"))
    start = Start.of(request, is_done)
    manifest, rows = _list_normals(request, start, model)
    identity = {
        "detector": request.detector,
        "config": start.config.model_dump(mode="json"),
        "manifest": manifest.digest,
        "drop_abnormal": request.drop_abnormal,
        **({"add_to": start.facts["added_to"]} if start.facts else {}),
        # Named only where it is not the default, so that trainings from before can be resumed.
        **({"engine": request.engine} if request.engine != EAGER else {}),
    }
    remedy = "give a fresh --out, or the command it began with"
    claim(storage.join(model, "training"), "job.json", identity, request.out, remedy)
    if is_done:
        say(f"{request.out} is trained already")
    else:
        job = _prepare(request, start, manifest, rows, model)
        began = time.perf_counter()
        with connected(debug):
            _fit(job, start, request)
        seconds = time.perf_counter() - began
        say(f"trained {read_info(model)['id']} in {seconds:,.0f} s; it is in {request.out}")
    _tidy(model)
    return dict(read_info(model))


def _list_normals(request: TrainRequest, start: Start, model: str) -> tuple[Manifest, pa.Table]:
    """The manifest of the sources, and the rows in it that the model is to learn from."""
    folder = storage.join(model, "training")
    manifest = resolve(request.sources, storage.join(folder, "manifest"), request.out)
    try:
        normal = normal_rows(manifest.table(), request.typed_sources, request.drop_abnormal)
        folds = start.config.calibration_folds
        if start.rows is None:
            check_folds(folds, len(normal))
        rows = start.new(with_subsets(normal, start.config.seed, folds), request)
        every = start.with_earlier(rows)
        if not folds and not pc.any(pc.equal(every["part"], "train")).as_py():
            raise TrainingError(
                f"{request.typed_sources} leaves no image to train on ({len(every)} in all): give "
                f"more normal images"
            )
    except GanadError:
        if not storage.exists(storage.join(folder, "job.json")):
            # Nothing has begun: the folder is free for the source that was meant.
            storage.remove_folder(storage.join(folder, "manifest"))
        raise
    return manifest, rows


def _prepare(
    request: TrainRequest, start: Start, manifest: Manifest, rows: pa.Table, model: str
) -> TrainingJob:
    """Write the split down, and describe the job."""
    every = start.with_earlier(rows)
    counts = Counter(every["part"].to_pylist())
    if start.config.calibration_folds:
        counts = Counter(train=len(every), calibration=len(every))
    if counts["calibration"] < MINIMUM_CALIBRATION:
        say(
            f"only {counts['calibration']} images are held out for calibration: p-values will be "
            f"coarse"
        )
    split = storage.join(model, "training", "split.parquet")
    storage.write_table(split, every)
    uri = split
    if start.rows is not None:
        uri = storage.join(model, "training", "uncalibrated", "added.parquet")
        storage.write_table(uri, rows)
    names_and_parts = zip(every["name"].to_pylist(), every["part"].to_pylist(), strict=True)
    return TrainingJob(
        detector=request.detector,
        config=start.config,
        preprocessing=Preprocessing(
            image_size=start.config.image_size, channels=start.config.channels
        ),
        model=model,
        rows=uri,
        num_rows=len(rows),
        facts={
            "source": manifest.uri,
            "manifest": manifest.digest,
            "split": split_digest(names_and_parts),
            "num_train": counts["train"],
            "num_calibration": counts["calibration"],
            "num_validation": counts["validation"],
            **({**start.facts, "num_added": len(rows)} if start.facts else {}),
        },
    )


def _fit(job: TrainingJob, start: Start, request: TrainRequest) -> None:
    detector = start.detector
    assert detector is not None  # the training has not finished before
    without_gpu = None if isinstance(detector, StatisticsDetector) else 1
    resources = allocate(request.workers, request.gpu, without_gpu, request.cores)
    job = choose_backbone(job, detector, request.engine, resources)
    if isinstance(detector, StatisticsDetector):
        fit_statistics(job, start, detector, resources)
    else:
        fit_gradient(job, resources)


def _tidy(model: str) -> None:
    """Write the page of the run, and remove what only the run itself needed."""
    if not storage.exists(storage.join(model, "training.html")):
        write_training_page(model)
    for name in ("cache", "checkpoints", "uncalibrated", FOLDS):
        storage.remove_folder(storage.join(model, "training", name))
