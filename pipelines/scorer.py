"""The actor that scores units of an archive and writes each model's part of the table."""

from __future__ import annotations

import io
import json
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ganad.archive import storage
from ganad.archive.decode import Preprocessing
from ganad.model import load
from ganad.scoring import score_rows
from pipelines.graph import Batch, decoded_rows
from pipelines.units import Unit


def part_uri(table: str, model_id: str, number: int) -> str:
    """Where the scores that a model gives to a unit are written."""
    return storage.join(table, f"model={model_id}", f"part-{number:06d}.parquet")


class Scorer:
    """Holds the models; scores one unit per call and writes its part of each model's table."""

    def __init__(self, models: Sequence[str], table: str, num_threads: int) -> None:
        torch.set_num_threads(num_threads)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.models = [load(model, device) for model in models]
        self.preprocessings = distinct([model.preprocessing for model in self.models])
        self.table = table

    def __call__(self, batch: Batch) -> Batch:
        unit = Unit.of(batch)
        rows = unit.rows()
        decoded, decode_s = decoded_rows(batch, rows, self.preprocessings)
        report: dict[str, Any] = {"rows": unit.num, "decode_s": decode_s}
        began = time.perf_counter()
        tables = []
        for model in self.models:
            size = self.preprocessings.index(model.preprocessing)
            tables.append(score_rows(model, rows, [one[size] for one in decoded]))
        report["score_s"] = time.perf_counter() - began
        began = time.perf_counter()
        for model, scored in zip(self.models, tables, strict=True):
            write_part(part_uri(self.table, model.id, unit.number), scored)
        report["write_s"] = time.perf_counter() - began
        failures = Counter(error for error in tables[0]["error"].to_pylist() if error)
        report["failures"] = dict(failures)
        return {"number": batch["number"], "report": [json.dumps(report)]}


def distinct(preprocessings: Sequence[Preprocessing]) -> list[Preprocessing]:
    """Each kind of preprocessing once: an image is decoded once for all models that share it."""
    return list(dict.fromkeys(preprocessings))


def write_part(uri: str, table: pa.Table) -> None:
    """Write a Parquet file so that a reader sees all of it or nothing."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    storage.write_bytes(uri, sink.getvalue())
