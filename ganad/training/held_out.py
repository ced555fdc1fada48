"""Held-out normal images: their scores, from which a model is calibrated, and what images must be
kept as so that a model to which images are added later can be calibrated again.

MODEL/held_out.parquet has a row for each image: image_id, score, and its vectors by level. Only
detectors that can be extended (see ganad.detectors.base.Extendable) have it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from ganad.calibration import Calibration
from ganad.detectors.base import Detector, Extendable
from ganad.detectors.gradient import GradientDetector
from ganad.heat import Heat, sampled
from ganad.images.protocol import Images, pieces
from ganad.saved import read_info, read_part
from ganad.storage import files as storage

KEPT_BYTES = 2**28
"""Upper bound on the vectors of a model, about 22,000 images with all levels of EfficientNet-B4."""
FILE = "held_out.parquet"


@dataclass(frozen=True)
class HeldOut:
    """ids (n,), scores float64 (n,), by level vectors float32 (n, d) or (n, windows, d), and the
    heat of some of the images."""

    ids: tuple[str, ...] = ()
    scores: np.ndarray = field(default_factory=lambda: np.empty(0))
    vectors: Mapping[str, np.ndarray] = field(default_factory=dict)
    heat: Heat = field(default_factory=Heat)

    @staticmethod
    def of(
        detector: Detector[Any],
        images: Tensor,
        ids: Sequence[str],
        keep: bool = True,
        total: int | None = None,
    ) -> HeldOut:
        """uint8 images (n, c, h, w), scored by a fitted detector. keep: their vectors, if it has
        some. total: images held out, of which these are a part; left out, these are all.

        An image without a finite score is left out: it never gets a p-value. But where networks
        were trained it is a sign that training has diverged, for Calibration to refuse.
        """
        vectors: dict[str, np.ndarray] = {}
        mapped = sampled(ids, len(ids) if total is None else total)
        maps: np.ndarray | None = None
        if keep and isinstance(detector, Extendable):
            vectors = detector.vectors(images)
            scores = detector.score_vectors(vectors)
        else:
            # One pass gives both, where every image has its turn.
            scored = detector.score(images, ids, maps=len(mapped) == len(ids))
            scores, maps = scored.score, scored.maps
        names = [ids[place] for place in mapped]
        if maps is None and mapped:
            maps = detector.score(images[mapped], names, maps=True).maps
        heat = Heat() if maps is None else Heat.of(maps, names)
        if isinstance(detector, GradientDetector):
            return HeldOut(tuple(ids), scores, heat=heat)
        good = np.flatnonzero(np.isfinite(scores)).tolist()
        kept = {level: array[good] for level, array in vectors.items()}
        return HeldOut(tuple(ids[i] for i in good), scores[good], kept, heat)

    @staticmethod
    def from_images(
        detector: Detector[Any],
        images: Images,
        positions: np.ndarray,
        ids: Sequence[str],
        keep: bool = True,
        total: int | None = None,
    ) -> HeldOut:
        """The images at these positions, scored; ids: of them, in their order. total: see of."""
        total = len(positions) if total is None else total
        return HeldOut.merge(
            HeldOut.of(
                detector, torch.from_numpy(images.take(positions[some])), ids[some], keep, total
            )
            for some in pieces(images, len(positions))
        )

    @staticmethod
    def merge(parts: Iterable[HeldOut]) -> HeldOut:
        """All of them. Of more vectors than KEPT_BYTES a random sample is kept, and which images
        are in it depends on their ids alone: whatever the parts, it is the same."""
        every = [part for part in parts if part.ids]
        if not every:
            return HeldOut()
        heat = Heat.merge(part.heat for part in every)
        ids = [name for part in every for name in part.ids]
        scores = np.concatenate([part.scores for part in every])
        # A part without vectors, such as one of a crossed calibration, leaves the others none.
        levels = set.intersection(*(set(part.vectors) for part in every))
        joined = {
            level: np.concatenate([part.vectors[level] for part in every])
            for level in every[0].vectors
            if level in levels
        }
        each = sum(vectors[0].nbytes for vectors in joined.values())
        if not each or len(ids) * each <= KEPT_BYTES:
            return HeldOut(tuple(ids), scores, joined, heat)
        order = sorted(range(len(ids)), key=lambda i: hashlib.blake2b(ids[i].encode()).digest())
        kept = sorted(order[: max(1, KEPT_BYTES // each)])
        vectors = {level: array[kept] for level, array in joined.items()}
        return HeldOut(tuple(ids[i] for i in kept), scores[kept], vectors, heat)

    def rescored(self, detector: Extendable[Any]) -> HeldOut:
        """The same images scored by another fit; those without vectors keep their scores. Their
        maps are gone, and the heat stays that of the earlier fit."""
        if not self.vectors:
            return self
        return replace(self, scores=detector.score_vectors(self.vectors))

    def calibration(self, folds: int = 0) -> Calibration | None:
        """None without images. folds: of a crossed calibration. Raises TrainingError for scores
        that cannot calibrate."""
        return Calibration(self.scores, self.ids, folds) if self.ids else None

    def files(self) -> dict[str, bytes]:
        """The files to save beside the model, by name: vectors and heat, if there are any."""
        if not self.vectors:
            return self.heat.files()
        columns = {"image_id": pa.array(self.ids, pa.string()), "score": pa.array(self.scores)}
        for level, vectors in self.vectors.items():
            columns[level] = pa.FixedShapeTensorArray.from_numpy_ndarray(vectors)
        return {FILE: storage.parquet_bytes(pa.table(columns)), **self.heat.files()}

    @staticmethod
    def read(folder: str) -> HeldOut | None:
        """That of a saved model; None if it has none. Raises ModelError for a damaged one."""
        info = read_info(folder)
        if FILE not in info["files"]:
            return None
        table = pq.read_table(pa.BufferReader(read_part(folder, info, FILE)))
        arrays = {name: table[name].combine_chunks() for name in table.column_names}
        vectors = {
            name: array.to_numpy_ndarray()
            for name, array in arrays.items()
            if isinstance(array, pa.FixedShapeTensorArray)
        }
        ids = tuple(table["image_id"].to_pylist())
        return HeldOut(ids, table["score"].to_numpy(), vectors, Heat.read(folder) or Heat())
