"""Several models that score the same images: those with the same backbone share its forward pass.

They take turns batch by batch, and the network's features of the batch at hand are kept for the
next model. Scores are equal to the last bit to those of each model by itself, because the batches
are.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ganad.features.shared import Sharing, share
from ganad.images.decode import Decoded
from ganad.scores.rows import score_rows

if TYPE_CHECKING:
    from ganad.model import Model


def groups(models: Sequence[Model]) -> list[list[int]]:
    """Positions of the models, in groups that share a backbone; the others alone.

    Models share it if they see images of the same size, uncut, with the same weights, and run
    eager: a compiled pass is one piece.
    """
    backbones: dict[tuple[Any, ...], list[tuple[int, Sharing]]] = {}
    for position, model in enumerate(models):
        detector = model.detector
        if detector.engine is not None or detector.config.patch is not None:
            continue
        for network in detector.modules():
            if isinstance(network, Sharing):
                key = (model.preprocessing, detector.scoring_batch)
                backbones.setdefault(key, []).append((position, network))
    found = []
    for some in backbones.values():
        for group in share([network for _, network in some]):
            found.append([some[member][0] for member in group])
    grouped = {position for group in found for position in group}
    return sorted(found + [[one] for one in range(len(models)) if one not in grouped])


def score_together(
    models: Sequence[Model], rows: Sequence[Mapping[str, Any]], decoded: Sequence[Decoded]
) -> list[tuple[pa.Table, float]]:
    """For each model of a group its rows of the score table, and the seconds that it took. The
    first one's include the shared pass."""
    parts: list[list[pa.Table]] = [[] for _ in models]
    seconds = [0.0] * len(models)
    size = len(decoded) if len(models) == 1 else models[0].detector.scoring_batch
    for batch in _batches(decoded, size):
        for number, model in enumerate(models):
            began = time.perf_counter()
            parts[number].append(score_rows(model, rows[batch], decoded[batch]))
            seconds[number] += time.perf_counter() - began
    return [(pa.concat_tables(part), took) for part, took in zip(parts, seconds, strict=True)]


def _batches(decoded: Sequence[Decoded], size: int) -> Iterator[slice]:
    """Stretches with size good images each, the last with the rest: a model that gets all at once
    cuts the good ones into the same batches."""
    start = num = 0
    for end, one in enumerate(decoded, 1):
        num += one.image is not None
        if num == size or end == len(decoded):
            yield slice(start, end)
            start, num = end, 0
