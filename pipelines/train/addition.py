"""What a training starts from: nothing, or a fitted model that normal images are added to, without
the images that it was fitted on (--add-to)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ganad.archive.splits import split_digest
from ganad.detectors import DETECTORS, configure, create, find
from ganad.detectors.base import Detector, Extendable
from ganad.detectors.config import DetectorConfig
from ganad.errors import ConfigError, ModelError, TrainingError
from ganad.heat import Heat
from ganad.model import load
from ganad.storage import files as storage
from ganad.training.held_out import HeldOut
from pipelines.train.request import TrainRequest


@dataclass(frozen=True)
class Start:
    """What is there before the first image of a training is read."""

    config: DetectorConfig
    detector: Detector[Any] | None = None
    """None if the training has finished before."""
    statistics: tuple[Any, ...] = ()
    """Those of the earlier fit, if there was one."""
    rows: pa.Table | None = None
    """The images of the earlier fit, with the subset of each in the column `part`."""
    held_out: HeldOut = HeldOut()
    facts: dict[str, Any] = field(default_factory=dict)
    """What job.json and model.json record of the earlier fit."""

    @staticmethod
    def of(request: TrainRequest, is_done: bool = False) -> Start:
        """Raises ConfigError for keys that are wrong, and for models that cannot be added to.

        is_done: the training has finished before, so that no detector is needed.
        """
        if request.add_to is not None:
            return _extend(request.detector, request.add_to)
        config = configure(request.detector, request.values)
        # Made before anything is listed or written, so that missing weights are reported at once.
        return Start(config, None if is_done else create(request.detector, config))

    def new(self, rows: pa.Table, request: TrainRequest) -> pa.Table:
        """The rows that the earlier fit has not seen; raises TrainingError if there are none."""
        if self.rows is None:
            return rows
        known = pc.is_in(rows["image_id"], value_set=self.rows["image_id"].combine_chunks())
        fresh = rows.filter(pc.invert(known))
        if len(fresh) == 0:
            raise TrainingError(
                f"{request.typed_sources} adds nothing: all its {len(rows)} images are in "
                f"{request.add_to} already; give images that are not"
            )
        return fresh

    def with_earlier(self, rows: pa.Table) -> pa.Table:
        """The rows of the earlier fit, and these."""
        if self.rows is None:
            return rows
        return pa.concat_tables([self.rows, rows], promote_options="default")


def _extend(name: str, folder: str) -> Start:
    """Raises ConfigError if images cannot be added to a model of that kind, and ModelError if its
    folder does not say what it was fitted on."""
    typed = f"--add-to {folder}"
    if not issubclass(find(name), Extendable):
        able = [other for other in DETECTORS if issubclass(find(other), Extendable)]
        raise ConfigError(
            f"{typed} does not work for {name}, which does not keep what it was fitted to "
            f"({', '.join(able)} does): train it again on all images"
        )
    model = load(folder)
    detector = model.detector
    if detector.name != name:
        raise ConfigError(f"{typed} is a model of {detector.name}: give one of {name}")
    assert isinstance(detector, Extendable)
    uri = storage.absolute(folder)
    split = storage.join(uri, "training", "split.parquet")
    if not storage.exists(split):
        raise ModelError(
            f"{typed} has no training/split.parquet, so images that it knows could be added twice: "
            f"give the whole folder that ganad train wrote"
        )
    calibration, held_out = model.calibration, HeldOut.read(folder)
    if calibration is not None and calibration.folds:
        # Models that no longer exist have scored these images; their scores stay as they are.
        heat = Heat.read(folder) or Heat()
        held_out = HeldOut(calibration.ids, calibration.scores, heat=heat)
    if held_out is None and calibration is not None:
        raise ModelError(
            f"{typed} has no held_out.parquet, so it cannot be calibrated again: "
            f"train it again with this version of ganad"
        )
    return Start(
        config=detector.config,
        detector=detector,
        statistics=(detector.statistics,),
        rows=_read_split(split, typed, model.training["split"]),
        held_out=held_out or HeldOut(),
        facts={"added_to": model.id},
    )


def _read_split(uri: str, typed: str, digest: str) -> pa.Table:
    """Raises ModelError unless the names and parts in the file are those of this digest."""
    try:
        rows = storage.read_table(uri)
        names_and_parts = zip(rows["name"].to_pylist(), rows["part"].to_pylist(), strict=True)
        is_whole = split_digest(names_and_parts) == digest
    except (pa.ArrowException, OSError, KeyError, UnicodeDecodeError) as error:
        raise _damaged(typed) from error
    if not is_whole:
        raise _damaged(typed)
    return rows


def _damaged(typed: str) -> ModelError:
    return ModelError(
        f"{typed} has a damaged training/split.parquet, so images that it knows could be added "
        f"twice: take a copy of the model, or train it again on all images"
    )
