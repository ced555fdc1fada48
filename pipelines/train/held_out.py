"""Held-out normal images of a Gaussian fit, kept as their features in MODEL/held_out.parquet.

With them a model to which normal images are added is calibrated anew on the old ones as well, which
need not be there any more.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ganad.calibration import Calibration
from ganad.detectors.statistics.gaussian import Gaussian
from ganad.storage import files as storage
from pipelines.passes.worker import DecodedUnit, ModelWorker

KEPT_BYTES = 2**28
"""Of features at the most: with all levels of EfficientNet-B4 22 000 images."""
FILE = "held_out.parquet"


@dataclass(frozen=True)
class HeldOut:
    """Features of held-out images: ids (n,), and by level float32 (n, d) or (n, windows, d)."""

    ids: tuple[str, ...]
    vectors: dict[str, np.ndarray]

    @staticmethod
    def merge(parts: Iterable[HeldOut]) -> HeldOut:
        """All of them, or of too many a random sample: which ones depends on the ids alone."""
        every = [part for part in parts if part.ids]
        ids = [one for part in every for one in part.ids]
        joined = {k: np.concatenate([part.vectors[k] for part in every]) for k in every[0].vectors}
        each = sum(vectors[0].nbytes for vectors in joined.values())
        drawn = sorted(range(len(ids)), key=lambda i: hashlib.blake2b(ids[i].encode()).digest())
        chosen = sorted(drawn[: max(1, KEPT_BYTES // each)])
        return HeldOut(
            tuple(ids[i] for i in chosen), {k: vectors[chosen] for k, vectors in joined.items()}
        )

    def calibrate(self, detector: Gaussian) -> Calibration:
        """Their scores by a fitted detector."""
        scores = detector.score_vectors(self.vectors)
        good = np.isfinite(scores)  # an image with features that are not has no score anywhere
        ids = tuple(one for one, fine in zip(self.ids, good, strict=True) if fine)
        return Calibration(scores[good], ids)

    def save(self, model: str) -> None:
        """Write it into a model's folder."""
        columns: dict[str, Any] = {"image_id": pa.array(self.ids, pa.string())}
        for level, vectors in self.vectors.items():
            flat = pa.array(vectors.reshape(-1), pa.float32())
            columns[level] = pa.FixedSizeListArray.from_arrays(flat, vectors[0].size)
        shapes = {level: str(vectors.shape[1:]) for level, vectors in self.vectors.items()}
        sink = io.BytesIO()
        pq.write_table(pa.table(columns).replace_schema_metadata(shapes), sink)
        storage.write_bytes(storage.join(model, FILE), sink.getvalue())

    @staticmethod
    def read(model: str) -> HeldOut | None:
        """That of a model's folder; None if it has none."""
        uri = storage.join(model, FILE)
        if not storage.exists(uri):
            return None
        table = storage.read_table(uri)
        ids = tuple(table["image_id"].to_pylist())
        vectors = {}
        for level, shape in (table.schema.metadata or {}).items():
            sides = [int(word) for word in shape.decode().strip("(),").split(",")]
            flat = table[level.decode()].combine_chunks().flatten().to_numpy()
            vectors[level.decode()] = flat.reshape(len(ids), *sides)
        return HeldOut(ids, vectors)


class Extractor(ModelWorker):
    """Turns a unit of images into their features."""

    def setup(self, models: Sequence[str], num_threads: int) -> None:
        self.load_models(models, num_threads)

    def work(self, images: DecodedUnit) -> dict[str, Any]:
        found = HeldOut((), {})
        if images.good:
            vectors = _gaussian(self.model.detector).vectors(torch.from_numpy(images.images))
            found = HeldOut(tuple(str(images.rows[i]["image_id"]) for i in images.good), vectors)
        return {"held_out": pickle.dumps(found)}


def _gaussian(detector: Any) -> Gaussian:
    assert isinstance(detector, Gaussian)
    return detector
