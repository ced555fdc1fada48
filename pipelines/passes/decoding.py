"""Decodes the images of a unit: in a stage of its own beside GPUs, else in the worker."""

from __future__ import annotations

import json
import pickle
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ganad.errors import GanadError
from ganad.images.decode import Decoded, Preprocessing
from ganad.images.load import load_images
from ganad.storage.retry import JOB_PATIENCE_S, patiently
from pipelines.passes.units import Unit, rows_that_fit

Batch = dict[str, Any]
"""A block of one row: column -> sequence of one value."""
FAILURE = "failure"
"""Column that a result has instead of all others when a GanadError ended the work."""


def decode_unit(batch: Batch, preprocessings: Sequence[Preprocessing]) -> Batch:
    """Add the decoded pixels to a unit; a task that runs on any processor core. A unit that is too
    large, of a table that was begun without GPUs, is left to the worker."""
    unit = Unit.of(batch)
    if unit.num > rows_that_fit(preprocessings):
        return batch
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
    """The decoded images of a unit, by row and then by preprocessing, and a record of the work:
    began (seconds since 1970), decode_s, and retries (reason -> number)."""
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
    """All pixels end to end, and as JSON what is needed to cut them up again."""
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
        for (width, height, error, good), preprocessing in zip(row, preprocessings, strict=True):
            image = None
            if good:
                side = preprocessing.image_size
                shape = (preprocessing.channels, side, side)
                image = buffer[place : place + int(np.prod(shape))].reshape(shape)
                place += image.size
            images.append(Decoded(image, width, height, error))
        decoded.append(images)
    return decoded
