"""The base of all workers of a pass: a process that is started once and works on many units."""

from __future__ import annotations

import functools
import pickle
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ganad.errors import GanadError
from ganad.images.decode import Decoded, Preprocessing
from ganad.storage.retry import JOB_PATIENCE_S, patiently
from pipelines.passes.decoding import FAILURE, Batch, decoded_rows
from pipelines.passes.units import Unit, rows_at_once

if TYPE_CHECKING:
    from ganad.model import Model


@dataclass(frozen=True)
class DecodedUnit:
    """A unit, or a piece of one that is too large for the memory, with its rows and images."""

    unit: Unit
    rows: list[dict[str, Any]]
    decoded: list[list[Decoded]]
    """By row, then by preprocessing of the worker."""
    decoding: dict[str, Any]
    """Record of the work: began (seconds since 1970), decode_s, retries (reason -> number)."""

    @cached_property
    def good(self) -> list[int]:
        """Positions of the rows whose image could be decoded."""
        return [i for i, (first, *_) in enumerate(self.decoded) if first.image is not None]

    @property
    def images(self) -> np.ndarray:
        """Those that could be decoded, for the first preprocessing: uint8 (n, c, h, w), n > 0."""
        return np.stack([self.decoded[i][0].image for i in self.good])  # type: ignore[misc]

    @property
    def errors(self) -> dict[int, str]:
        """Position of a row -> why its image could not be decoded."""
        return {i: str(first.error) for i, (first, *_) in enumerate(self.decoded) if first.error}


class UnitWorker(ABC):
    """Decodes the images of a unit, unless an earlier stage has, and works on them.

    A subclass has a method `setup`, which takes the arguments of the pass and sets
    `preprocessings`, and a method `work`. A GanadError raised in either becomes the result, because
    Ray would forward only its text, inside an exception of its own.
    """

    preprocessings: Sequence[Preprocessing]
    setup: Callable[..., None]
    started: float
    ready: float
    """When setup began and ended, in seconds since 1970."""

    def __init__(self, **arguments: Any) -> None:
        self._failure: GanadError | None = None
        self.started = time.time()
        try:
            self.setup(**arguments)
        except GanadError as error:
            self._failure = error
        self.ready = time.time()

    @abstractmethod
    def work(self, images: DecodedUnit) -> dict[str, Any]:
        """The columns of the unit's result, beside its `number` and `num` (images); or, of a
        worker that takes units in pieces, what `join` needs."""

    def join(self, pieces: list[dict[str, Any]]) -> dict[str, Any]:
        """The columns of the unit's result, from what `work` gave for its pieces."""
        (result,) = pieces
        return result

    def __call__(self, batch: Batch) -> Batch:
        if FAILURE in batch:
            return {FAILURE: list(batch[FAILURE])}
        try:
            if self._failure is not None:
                raise self._failure
            return self._work(batch)
        except GanadError as error:
            return {FAILURE: [pickle.dumps(error)]}

    def _work(self, batch: Batch) -> Batch:
        unit = Unit.of(batch)
        step = unit.num if "pixels" in batch else rows_at_once(self.preprocessings)
        result = self.join([self._piece(batch, piece) for piece in unit.pieces(step)])
        return {
            "number": [unit.number],
            "num": [unit.num],
            **{column: [value] for column, value in result.items()},
        }

    def _piece(self, batch: Batch, piece: Unit) -> dict[str, Any]:
        retried: list[str] = []
        rows = patiently(piece.rows, piece.uri, JOB_PATIENCE_S, retried.append)
        decoded, decoding = decoded_rows(batch, rows, self.preprocessings)
        decoding["retries"] = dict(Counter(decoding["retries"]) + Counter(retried))
        return self.work(DecodedUnit(piece, rows, decoded, decoding))


class ModelWorker(UnitWorker):
    """A worker that holds one or several models, on the GPU where it has one."""

    def load_models(
        self,
        models: Sequence[str],
        num_threads: int,
        engines: Sequence[str] = (),
        maps: Sequence[bool] = (),
    ) -> None:
        """Load them and set `preprocessings`; part of every `setup`. engines: one for each model.
        maps: whether each one's heat maps are wanted, too.

        Raises ModelError, and ConfigError for an engine that this machine does not have.
        """
        # Not above: the driver of a pass names the class and needs no torch.
        import torch

        from ganad.model import load

        torch.set_num_threads(num_threads)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.models: list[Model] = [
            patiently(functools.partial(load, model, device), model, JOB_PATIENCE_S)
            for model in models
        ]
        self.preprocessings = distinct([model.preprocessing for model in self.models])
        wanted = maps or [False] * len(models)
        for model, engine, with_maps in zip(self.models, engines, wanted, strict=False):
            if engine != "eager":
                from ganad.engines.compiled import attach

                attach(model.detector, engine, with_maps)

    @property
    def model(self) -> Model:
        """The only one."""
        (model,) = self.models
        return model


def distinct(preprocessings: Sequence[Preprocessing]) -> list[Preprocessing]:
    """Each preprocessing once: an image is decoded once for all models that share it."""
    return list(dict.fromkeys(preprocessings))
