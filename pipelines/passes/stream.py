"""The Ray Data graph of every pass over an archive: units -> decode -> an actor that holds a model.

With GPUs the stages are apart: decoding on processor cores, the actor on its GPU. Without, the
actor decodes for itself: a second stage would only copy pixels, and tasks that wait for cores
which actors hold would never start.
"""

from __future__ import annotations

import functools
import json
import pickle
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import ray.data

from ganad.errors import CapacityError, GanadError
from ganad.images.decode import Decoded, Preprocessing
from ganad.images.load import load_images
from ganad.storage.retry import JOB_PATIENCE_S, patiently
from pipelines.cluster.connection import Resources
from pipelines.passes.units import Unit

Batch = dict[str, Any]
FAILURE = "failure"
"""Column that a result has in place of all others when a GanadError ended the work."""


def stream(
    units: Sequence[Unit],
    actor: type,
    arguments: Mapping[str, Any],
    preprocessings: Sequence[Preprocessing],
    resources: Resources,
) -> Iterator[dict[str, Any]]:
    """Run all units through a pool of actors; yields each one's row as soon as it is ready.

    Raises the GanadError that an actor or the decoding raised.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # A night may have an hour without a spot node in it: the job waits.
    context.execution_no_progress_timeout_s = -1
    # One unit per block: blocks are what tasks take and what is lost with them. The list makes its
    # blocks here; a repartition would be tasks, which wait for ever where actors hold every core.
    data: ray.data.Dataset = ray.data.from_items(
        [unit.item() for unit in units], override_num_blocks=len(units)
    )
    if resources.gpus:
        data = data.map_batches(
            functools.partial(decode_unit, preprocessings=preprocessings), batch_size=1, num_cpus=1
        )
    data = data.map_batches(
        _telling(actor),
        fn_constructor_kwargs=dict(arguments),
        batch_size=1,
        num_gpus=resources.gpus or None,
        # On GPUs every core is left to decoding, which actors that took cores would starve.
        num_cpus=0 if resources.gpus else resources.cpus,
        compute=ray.data.ActorPoolStrategy(size=min(resources.num_workers, len(units))),
    )
    try:
        for row in data.iter_rows():
            if FAILURE in row:
                raise pickle.loads(row[FAILURE])
            yield row
    except ray.exceptions.OutOfMemoryError:
        raise CapacityError(
            "--workers: the machine ran out of memory and Ray stopped a worker: use fewer workers"
        ) from None


def _telling(actor: type) -> type:
    """The actor, with the GanadErrors that it raises as its results: of an exception in a worker
    Ray passes on the text alone, inside its own."""

    def begin(self: Any, **arguments: Any) -> None:
        self.failure = None
        try:
            actor.__init__(self, **arguments)  # type: ignore[misc]
        except GanadError as error:
            self.failure = error

    def work(self: Any, batch: Batch) -> Batch:
        if FAILURE in batch:
            return {FAILURE: list(batch[FAILURE])}
        try:
            if self.failure is not None:
                raise self.failure
            return actor.__call__(self, batch)
        except GanadError as error:
            return {FAILURE: [pickle.dumps(error)]}

    return type(actor.__name__, (actor,), {"__init__": begin, "__call__": work})


def decode_unit(batch: Batch, preprocessings: Sequence[Preprocessing]) -> Batch:
    """A unit -> the same unit with its decoded pixels, as one row; runs on any processor core."""
    unit = Unit.of(batch)
    try:
        rows = patiently(unit.rows, unit.uri, JOB_PATIENCE_S)
        decoded, decoding = _load(rows, preprocessings)
    except GanadError as error:
        return {FAILURE: [pickle.dumps(error)]}
    began = time.perf_counter()
    pixels, facts = _pack(decoded)
    decoding["decode_s"] += time.perf_counter() - began
    return {**batch, "pixels": [pixels], "facts": [facts], "decoding": [json.dumps(decoding)]}


def decoded_rows(
    batch: Batch, rows: Sequence[Mapping[str, Any]], preprocessings: Sequence[Preprocessing]
) -> tuple[list[list[Decoded]], dict[str, Any]]:
    """A unit's decoded images, from the stage before or decoded here, and what that took: its
    beginning, decode_s, and retries by their reason."""
    if "pixels" in batch:
        decoded = _unpack(batch["pixels"][0], batch["facts"][0], preprocessings)
        return decoded, json.loads(batch["decoding"][0])
    return _load(rows, preprocessings)


def _load(
    rows: Sequence[Mapping[str, Any]], preprocessings: Sequence[Preprocessing]
) -> tuple[list[list[Decoded]], dict[str, Any]]:
    moment, began = time.time(), time.perf_counter()
    retried: list[str] = []
    decoded = load_images(rows, preprocessings, patience_s=JOB_PATIENCE_S, on_retry=retried.append)
    seconds = time.perf_counter() - began
    return decoded, {"began": moment, "decode_s": seconds, "retries": dict(Counter(retried))}


def _pack(decoded: list[list[Decoded]]) -> tuple[bytes, str]:
    """All pixels end to end, and the facts to cut them up again."""
    pixels = b"".join(
        one.image.tobytes() for row in decoded for one in row if one.image is not None
    )
    facts = [
        [(one.width, one.height, one.error, one.image is not None) for one in row]
        for row in decoded
    ]
    return pixels, json.dumps(facts)


def _unpack(
    pixels: bytes, facts: str, preprocessings: Sequence[Preprocessing]
) -> list[list[Decoded]]:
    buffer, place = np.frombuffer(pixels, np.uint8), 0
    decoded: list[list[Decoded]] = []
    for row in json.loads(facts):
        images = []
        for (width, height, error, good), kind in zip(row, preprocessings, strict=True):
            image = None
            if good:
                shape = (kind.channels, kind.image_size, kind.image_size)
                image = buffer[place : place + int(np.prod(shape))].reshape(shape)
                place += image.size
            images.append(Decoded(image, width, height, error))
        decoded.append(images)
    return decoded
