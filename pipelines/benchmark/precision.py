"""Scores and speed in float32 and bfloat16. Run: ganad benchmark precision MODEL SOURCE"""

from __future__ import annotations

import time
from itertools import islice
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from ganad.archive.listing import list_images
from ganad.detectors import find
from ganad.evaluation.metrics import ranking
from ganad.images.inputs import from_rows
from ganad.model import load

MOST = 2048
"""Images that are scored, at the most; they are decoded beforehand."""


def precision(model: str, source: str) -> list[dict[str, Any]]:
    """Score the same decoded images with the same weights in both precisions, side by side.

    Returns a row per precision: images per second of the forward pass in this process, AUROC where
    the images have labels of both kinds, and Spearman's correlation with the float32 scores.
    """
    loaded = load(model)
    rows = list(islice(list_images([source]), MOST))
    decoded = [one for some, _ in from_rows(rows, loaded.preprocessing) for one in some]
    good = [i for i, one in enumerate(decoded) if one.image is not None]
    images = torch.from_numpy(np.stack([decoded[i].image for i in good]))  # type: ignore[misc]
    ids = [rows[i]["image_id"] for i in good]
    abnormal = [rows[i]["abnormal"] for i in good]
    results: list[dict[str, Any]] = []
    reference: np.ndarray | None = None
    for name in ("float32", "bfloat16"):
        config = loaded.detector.config.model_copy(update={"precision": name})
        detector = find(loaded.detector.name).from_saved(config)
        detector.load_state_dict(loaded.detector.state_dict())
        detector.eval().to(memory_format=torch.channels_last)
        detector.score(images[:64], ids[:64])  # the first call prepares kernels
        began = time.perf_counter()
        scores = detector.score(images, ids).score
        seconds = time.perf_counter() - began
        reference = scores if reference is None else reference
        results.append(
            {
                "precision": name,
                "images": len(images),
                "images_per_s": round(len(images) / seconds, 1),
                "auroc": ranking(scores, np.array(abnormal, bool)).auroc
                if None not in abnormal
                else None,
                "spearman": float(spearmanr(reference, scores).statistic),
            }
        )
    return results
