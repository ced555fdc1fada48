"""One run of the accuracy benchmark, in one process: fit, score, measure."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ganad.archive.rows import Row
from ganad.evaluation.evaluate import by_label
from ganad.evaluation.metrics import PixelMetrics, PixelResult, ranking
from ganad.evaluation.pixels import at_image_size, read_mask
from ganad.images.inputs import from_rows
from ganad.model import Model
from ganad.training.fit import fit
from ganad.training.trainer import Progress
from pipelines.benchmark.data import DataSet, tested_rows


def fit_and_score(
    chosen: DataSet, detector: str, values: Mapping[str, Any], num_threads: int, pixels: bool
) -> list[dict[str, Any]]:
    """Rows of the benchmark's table: all kinds of defect together, then each. pixels: heat maps are
    compared with the masks, too, for all kinds together.

    Seconds are of the processor, so that runs which share a machine do not slow each other down in
    the table; on a GPU, of the wall. Images trained are those of all epochs, with decoding and
    calibration; images scored are without their decoding.
    """
    torch.set_num_threads(num_threads)
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    latest: list[Progress] = []
    began = clock()
    model = fit(detector, chosen.train, on_progress=latest.append, **values)
    train_s = clock() - began
    model.detector.to("cuda" if torch.cuda.is_available() else "cpu")
    rows = tested_rows(chosen)
    scores, score_s = [], 0.0
    for decoded, ids in from_rows(rows, model.preprocessing):
        began = clock()
        scores.append(model.score_decoded(decoded, ids).score)
        score_s += clock() - began
    abnormal = np.array([bool(row["abnormal"]) for row in rows])
    labels = np.array([str(row["label"]) for row in rows])
    all_scores = np.concatenate(scores)
    good = np.isfinite(all_scores)
    epochs = latest[-1].epoch if latest else 1
    beside = {
        "train_s": train_s,
        "train_images_per_s": model.training["num_train"] * epochs / train_s,
        "score_images_per_s": len(all_scores) / score_s,
    }
    found = []
    for label, those in by_label(abnormal, labels):
        result = ranking(all_scores[those & good], abnormal[those & good])
        found.append(
            {
                "label": label,
                "num": result.num,
                "num_abnormal": result.num_abnormal,
                "anomaly_ratio": result.anomaly_ratio,
                "auroc": result.auroc,
                "aupr": result.aupr,
                **beside,
            }
        )
    if pixels:
        places = _pixel_figures(model, rows)
        found[0] |= {"pixel_auroc": places.auroc, "aupro": places.aupro}
    return found


def _pixel_figures(model: Model, rows: Sequence[Row]) -> PixelResult:
    """Heat maps of the normal test images, and of those that have a mask, beside the masks."""
    metrics = PixelMetrics()
    compared = [row for row in rows if is_compared(row)]
    known = {row["image_id"]: row for row in compared}
    for decoded, ids in from_rows(compared, model.preprocessing):
        heat = model.score_decoded(decoded, ids, maps=True).maps
        for one, image, name in zip(heat, decoded, ids, strict=True):
            if one is not None:
                size = {"height": image.height, "width": image.width}
                add_map(metrics, one, {**known[name], **size})
    return metrics.result()


def is_compared(row: Mapping[str, Any]) -> bool:
    """Whether it is known which pixels of the image are abnormal."""
    return bool(row["mask"] or not row["abnormal"])


def add_map(metrics: PixelMetrics, heat: np.ndarray, row: Mapping[str, Any]) -> None:
    """Add the heat map of such an image; row: with its width and height."""
    mask = read_mask(row["mask"]) if row["abnormal"] else None
    metrics.add(*at_image_size(heat, mask, row))
