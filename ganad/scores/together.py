"""Several models that score the same images: those with the same backbone share its forward pass.

They take turns batch by batch, and the network's features of the batch at hand are kept for the
next model. Scores are equal to the last bit to those of each model by itself, because the batches
are.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ganad.features.shared import Sharing, share
from ganad.images.decode import Decoded
from ganad.scores.rows import rows_and_regions, score_rows

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


@dataclass
class Scored:
    """What a model makes of images."""

    parts: list[pa.Table] = field(default_factory=list)
    found: list[pa.Table] = field(default_factory=list)
    seconds: float = 0.0
    """That it took; of the first model of a group with the shared pass."""

    @property
    def rows(self) -> pa.Table:
        """Of the score table."""
        return pa.concat_tables(self.parts)

    @property
    def regions(self) -> pa.Table | None:
        """None unless they were asked for."""
        return pa.concat_tables(self.found) if self.found else None


def score_together(
    models: Sequence[Model],
    rows: Sequence[Mapping[str, Any]],
    decoded: Sequence[Decoded],
    levels: Sequence[float | None] = (),
) -> list[Scored]:
    """For each model of a group what it makes of the images. levels: of each model, the one above
    which regions are found, or None where they are not wanted."""
    levels = levels or [None] * len(models)
    results = [Scored() for _ in models]
    # Heat maps are made for a batch at a time: they are larger than the images.
    alone = len(models) == 1 and levels[0] is None
    size = len(decoded) if alone else models[0].detector.scoring_batch
    for batch in _batches(decoded, size):
        for model, level, result in zip(models, levels, results, strict=True):
            began = time.perf_counter()
            if level is None:
                result.parts.append(score_rows(model, rows[batch], decoded[batch]))
            else:
                both = rows_and_regions(model, rows[batch], decoded[batch], level)
                result.parts.append(both[0])
                result.found.append(both[1])
            result.seconds += time.perf_counter() - began
    return results


def _batches(decoded: Sequence[Decoded], size: int) -> Iterator[slice]:
    """Stretches with size good images each, the last with the rest: a model that gets all at once
    cuts the good ones into the same batches."""
    start = num = 0
    for end, one in enumerate(decoded, 1):
        num += one.image is not None
        if num == size or end == len(decoded):
            yield slice(start, end)
            start, num = end, 0
