"""One run of the accuracy benchmark, in one process: fit, score, measure."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ganad.archive.listing import list_images
from ganad.evaluation import by_kind
from ganad.fitting import fit
from ganad.inputs import from_rows
from ganad.metrics import ranking
from ganad.training import Progress
from pipelines.benchmark_data import DataSet


def fit_and_score(
    chosen: DataSet, detector: str, values: Mapping[str, Any], num_threads: int
) -> list[dict[str, Any]]:
    """Rows of the benchmark's table: all kinds of defect together, then each.

    The figures of speed are of this process: images through training steps (of a fit by statistics:
    through its one pass, decoding included), and images scored, without their decoding.
    """
    torch.set_num_threads(num_threads)
    latest: list[Progress] = []
    began = time.perf_counter()
    model = fit(detector, chosen.train, on_progress=latest.append, **values)
    train_s = time.perf_counter() - began
    model.detector.to("cuda" if torch.cuda.is_available() else "cpu")
    rows = list(list_images([chosen.test]))
    scores, score_s = [], 0.0
    for decoded, ids in from_rows(rows, model.preprocessing):
        began = time.perf_counter()
        scores.append(model.score_decoded(decoded, ids).score)
        score_s += time.perf_counter() - began
    abnormal = np.array([bool(row["abnormal"]) for row in rows])
    labels = np.array([str(row["label"]) for row in rows])
    all_scores = np.concatenate(scores)
    good = np.isfinite(all_scores)
    rates = [one.images_per_second for one in latest if np.isfinite(one.images_per_second)]
    beside = {
        "train_s": train_s,
        "train_images_per_s": rates[-1] if rates else model.training["num_train"] / train_s,
        "score_images_per_s": len(all_scores) / score_s,
    }
    found = []
    for label, those in by_kind(abnormal, labels):
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
    return found
