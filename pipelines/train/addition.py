"""A fitted model that normal images are added to, without the images that it was fitted on.

The Gaussian keeps the sums that it was made from, and its held-out images as features: the result
is that of a fit to the old and new images together.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from ganad.detectors.statistics.gaussian import Gaussian
from ganad.errors import ConfigError, ModelError, TrainingError
from ganad.model import load
from ganad.storage import files as storage
from pipelines.train.held_out import HeldOut


@dataclass(frozen=True)
class Base:
    """What the old model brings along."""

    typed: str
    """Its folder as the user wrote it."""
    id: str
    detector: Gaussian
    rows: pa.Table
    """The images it has seen, with their part: train, calibration or validation."""
    held_out: HeldOut | None

    @staticmethod
    def open(typed: str, detector: str) -> Base:
        """Raises ConfigError if images cannot be added to a model of that kind, and ModelError if
        its folder does not say what it was fitted on."""
        if detector != Gaussian.name:
            raise ConfigError(
                f"--add-to works for {Gaussian.name}, whose fit is made of sums, and not for "
                f"{detector}: train it again on all images"
            )
        model = load(typed)
        if not isinstance(model.detector, Gaussian):
            raise ConfigError(
                f"--add-to {typed} is a model of {model.detector.name}: give one of {detector}"
            )
        folder = storage.absolute(typed)
        split = storage.join(folder, "training", "split.parquet")
        if not storage.exists(split):
            raise ModelError(
                f"--add-to {typed} has no training/split.parquet, so images that it knows could be "
                f"added twice: give the whole folder that ganad train wrote"
            )
        held_out = HeldOut.read(folder)
        if held_out is None and model.calibration is not None:
            raise ModelError(
                f"--add-to {typed} has no held_out.parquet, so it cannot be calibrated anew: "
                f"train it again with this version of ganad"
            )
        rows = storage.read_table(split)
        return Base(typed, model.id, model.detector, rows, held_out)

    def new(self, rows: pa.Table, typed: str) -> pa.Table:
        """Those of the rows that the model has not seen; raises TrainingError if there are none."""
        known = pc.is_in(rows["image_id"], value_set=self.rows["image_id"].combine_chunks())
        fresh = rows.filter(pc.invert(known))
        if len(fresh) == 0:
            raise TrainingError(
                f"{typed} adds nothing: all its {len(rows)} images are in {self.typed} already; "
                f"give images that are not"
            )
        return fresh
