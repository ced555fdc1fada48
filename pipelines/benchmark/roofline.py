"""What the machine can do without Ray: the same work in plain processes, and a DataLoader loop.

Every process has one thread, as the workers of a scoring job without GPUs have.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, Dataset

from ganad.engines.compiled import attach
from ganad.images.decode import Decoded, Preprocessing, decode
from ganad.images.load import load_images
from ganad.model import Model, load

BATCH = 64
Row = Mapping[str, Any]


def decode_alone(model: str, rows: Sequence[Row], num_processes: int) -> float:
    """Images per second of fetching and decoding, over all processes together."""
    return _rate(_decode, model, rows, num_processes)


def forward_alone(
    model: str, rows: Sequence[Row], num_processes: int, engine: str = "eager"
) -> float:
    """Images per second of scoring what is decoded already, over all processes together."""
    return _rate(partial(_forward, engine), model, rows, num_processes)


def both(model: str, rows: Sequence[Row], num_processes: int) -> float:
    """Images per second of decoding and scoring, with nothing written: the roofline of a job."""
    return _rate(_both, model, rows, num_processes)


Work = Callable[[str, Sequence[Row]], tuple[float, float]]
"""Does its share and returns when it began and ended, with what comes before left out."""


def _rate(work: Work, model: str, rows: Sequence[Row], num: int) -> float:
    """By the wall clock of the slowest: the processes work at the same time."""
    shares = [(model, rows[start::num]) for start in range(num)]
    with multiprocessing.get_context("spawn").Pool(num) as pool:
        spans = pool.starmap(work, shares, chunksize=1)
    return len(rows) / (max(end for _, end in spans) - min(begin for begin, _ in spans))


def _decode(model: str, rows: Sequence[Row]) -> tuple[float, float]:
    preprocessing = load(model).preprocessing
    torch.set_num_threads(1)
    began = time.time()
    for some in _batches(rows):
        load_images(some, [preprocessing])
    return began, time.time()


def _forward(engine: str, model: str, rows: Sequence[Row]) -> tuple[float, float]:
    loaded = _with_engine(model, engine, 1)
    some = list(rows[:BATCH])
    decoded = [one for (one,) in load_images(some, [loaded.preprocessing])]
    ids = [row["image_id"] for row in some]
    loaded.score_decoded(decoded, ids)  # the first call prepares kernels
    began = time.time()
    for others in _batches(rows):
        loaded.score_decoded(decoded[: len(others)], ids[: len(others)])
    return began, time.time()


def _both(model: str, rows: Sequence[Row]) -> tuple[float, float]:
    torch.set_num_threads(1)
    loaded = load(model)
    first = [one for (one,) in load_images(rows[:BATCH], [loaded.preprocessing])]
    loaded.score_decoded(first, [row["image_id"] for row in rows[:BATCH]])
    began = time.time()
    for some in _batches(rows):
        decoded = [one for (one,) in load_images(some, [loaded.preprocessing])]
        loaded.score_decoded(decoded, [row["image_id"] for row in some])
    return began, time.time()


def _with_engine(model: str, engine: str, num_threads: int) -> Model:
    torch.set_num_threads(num_threads)
    loaded = load(model)
    attach(loaded.detector, engine)
    return loaded


def _batches(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    return (rows[start : start + BATCH] for start in range(0, len(rows), BATCH))


class _Files(Dataset[Decoded]):
    def __init__(self, paths: Sequence[str], preprocessing: Preprocessing) -> None:
        self.paths, self.preprocessing = paths, preprocessing

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> Decoded:
        return decode(Path(self.paths[number]).read_bytes(), self.preprocessing)


def hand_written_loop(
    model: str, paths: Sequence[str], num_workers: int, out: Path, engine: str = "eager"
) -> float:
    """Images per second, from the first batch on, of what one writes without ganad's jobs: a
    DataLoader that decodes, a loop that scores, a Parquet file at the end. It does not resume, and
    one machine is all it has."""
    loaded = _with_engine(model, engine, num_workers)
    loader = DataLoader(
        _Files(paths, loaded.preprocessing),
        batch_size=BATCH,
        num_workers=num_workers,
        collate_fn=list,
        multiprocessing_context="spawn",
    )
    scores, place, began = [], 0, 0.0
    for decoded in loader:
        scores.append(loaded.score_decoded(decoded, paths[place : place + len(decoded)]).score)
        place += len(decoded)
        began = began or time.perf_counter()  # the loaders have started, and kernels are ready
    pq.write_table(pa.table({"path": list(paths), "score": np.concatenate(scores)}), out)
    return max(1, len(paths) - BATCH) / (time.perf_counter() - began)
