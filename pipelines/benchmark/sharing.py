"""Models with the same backbone in one pass, beside each by itself. Run: ganad benchmark sharing

Both ways take turns over the same decoded images, and a ratio is the median over rounds.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice
from statistics import median
from typing import Any

import torch

from ganad.archive.listing import list_images
from ganad.errors import ConfigError
from ganad.images.load import load_images
from ganad.model import load
from ganad.scores.together import groups, score_together


def sharing(
    models: Sequence[str], source: str, num: int, rounds: int, num_threads: int
) -> list[dict[str, Any]]:
    """Score the first num images of source with saved models, one after the other and together.

    Rows: images per second of all models, and how many times as fast as one after the other.
    same: whether all scores are equal to the last bit. Raises ConfigError for models that do not
    share a backbone.
    """
    torch.set_num_threads(num_threads)
    alone, shared = ([load(model) for model in models] for _ in range(2))
    together = groups(shared)
    if len(together) > 1 or len(models) < 2:
        raise ConfigError(
            f"{' '.join(models)} do not share a backbone: give models of the same image_size, "
            f"channels and backbone, such as one of gaussian and one of knn"
        )
    rows = list(islice(list_images([source]), num))
    decoded = [one for (one,) in load_images(rows, [alone[0].preprocessing])]
    spent: dict[str, list[float]] = {"one after the other": [], "together": []}
    same = True
    for _ in range(rounds + 1):
        began = time.perf_counter()
        first = [score_together([model], rows, decoded)[0].rows for model in alone]
        middle = time.perf_counter()
        second = [one.rows for one in score_together(shared, rows, decoded)]
        ended = time.perf_counter()
        for seconds, took in zip(spent.values(), (middle - began, ended - middle), strict=True):
            seconds.append(took)
        same &= all(
            one["score"].equals(other["score"]) for one, other in zip(first, second, strict=True)
        )
    before, after = (seconds[1:] for seconds in spent.values())  # the first round warms up
    ratios = {"one after the other": 1.0}
    ratios["together"] = median(one / other for one, other in zip(before, after, strict=True))
    return [
        {
            "way": way,
            "images_per_s": round(len(rows) / median(seconds[1:]), 1),
            "times": round(ratios[way], 2),
            "same": same,
        }
        for way, seconds in spent.items()
    ]
