"""What every process of a training job is told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from ganad.detectors.config import DetectorConfig
from ganad.images.decode import Preprocessing
from ganad.storage import files as storage
from ganad.training.folds import chosen

FOLDS = "folds"
"""Folder of the models that calibrate, while training runs."""


@dataclass(frozen=True)
class TrainingJob:
    """A detector to fit, the rows to fit it on, and where everything goes."""

    detector: str
    config: DetectorConfig
    preprocessing: Preprocessing
    model: str
    """URI of the model's folder."""
    rows: str
    """URI of the Parquet file of the rows, sorted by name, with the column `part`."""
    num_rows: int
    facts: dict[str, Any]
    """What the saved model records of its data."""
    fold: str | None = None
    """The fold of a crossed calibration that this training leaves out and scores."""
    engine: str = "eager"
    """Of the frozen network, where there is one; see pipelines.train.engines."""
    typed_engine: str = "eager"
    """What the user typed as --engine."""

    def without(self, fold: str) -> TrainingJob:
        """The same training without a fold, into a folder of its own beside this one's files."""
        return replace(self, model=self.place(FOLDS, fold), fold=fold)

    def with_engines(self, engine: str, typed: str, facts: dict[str, Any]) -> TrainingJob:
        """The same training by engines that have been tried."""
        return replace(self, engine=engine, typed_engine=typed, facts=facts)

    def place(self, *names: str) -> str:
        """A URI under MODEL/training."""
        return storage.join(self.model, "training", *names)

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows, or some columns of them."""
        return storage.read_table(self.rows, columns)

    def positions(self, part: str, bad: Iterable[int] = ()) -> np.ndarray:
        """Row numbers of one part (train, calibration, validation), without those of unreadable
        images."""
        parts = self.table(["part"])["part"].to_pylist()
        found = chosen(parts, part, self.config.calibration_folds, self.fold)
        found[list(bad)] = False
        return np.flatnonzero(found)
