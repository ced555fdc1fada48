"""A small score table written as ganad score writes one."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ganad.calibration import Calibration
from ganad.scores.table import SCHEMA
from ganad.storage import files as storage

MODEL = "ganomaly-0123456789ab"
OTHER = "vae-ba9876543210"


def make_rows(num=60, seed=0, folder="/images", labelled=True, num_failed=2):
    """Rows of one model: 10 calibrated normals give p-values, every third image is abnormal."""
    rng = np.random.default_rng(seed)
    calibration = Calibration(rng.normal(size=99), tuple(map(str, range(99))))
    rows = []
    for i in range(num):
        abnormal = i % 3 == 0
        score = float(rng.normal() + 2 * abnormal)
        label = "good" if not abnormal else ("scratch" if i % 2 else "hole")
        row = {
            "image_id": f"{i:016x}",
            "uri": f"{folder}/{label}/{i:03d}.png",
            "name": f"{label}/{i:03d}.png",
            "width": 32,
            "height": 24,
            "score": score,
            "p_value": float(calibration.p_values(np.array([score]))[0]),
            "terms": [("con", score / 2), ("enc", score / 2)],
            "label": label if labelled else None,
            "abnormal": abnormal if labelled else None,
            "scored_at": datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC),
        }
        if i < num_failed:
            row |= dict.fromkeys(("score", "p_value", "terms", "width", "height"))
            row["error"] = "empty file"
        rows.append(row)
    return rows


def rows_of(manifest):
    """A score for every image of a manifest, rising in its order."""
    columns = ("image_id", "uri", "member", "name", "label", "abnormal", "mask")
    rows = []
    for number, row in enumerate(manifest.table().to_pylist()):
        width = height = 32
        if row["member"] is None:
            with Image.open(row["uri"]) as image:
                width, height = image.size
        facts = {"score": float(number), "p_value": 0.5, "width": width, "height": height}
        rows.append({key: row[key] for key in columns} | facts)
    return rows


def write_table(folder, rows_by_model, *, part_rows=25, run=True, models=(), manifest=None):
    """Write parts, then run.json; returns the folder as given."""
    counts = {}
    for model, rows in rows_by_model.items():
        for number, start in enumerate(range(0, len(rows), part_rows)):
            sink = pa.BufferOutputStream()
            part = rows[start : start + part_rows]
            pq.write_table(pa.Table.from_pylist(part, schema=SCHEMA), sink)
            uri = storage.join(folder, f"model={model}", f"part-{number:05d}.parquet")
            storage.write_bytes(uri, sink.getvalue().to_pybytes())
        failed = sum(row.get("error") is not None for row in rows)
        counts[model] = {"in": len(rows), "scored": len(rows) - failed, "failed": failed}
    if run:
        storage.write_json(
            storage.join(folder, "run.json"),
            {
                "format": 1,
                "command": ["ganad", "score", "model", "images"],
                "models": list(models)
                or [
                    {"model": model, "path": f"{folder}/gone", "detector": model.split("-")[0]}
                    for model in rows_by_model
                ],
                "manifest": manifest or {"uri": f"{folder}/gone", "digest": "d", "images": 1},
                "counts": counts,
                "failures": {},
                "versions": {"ganad": "0.1.0"},
                "timings": {},
                "started_at": "2025-01-02T03:04:05+00:00",
                "finished_at": "2025-01-02T03:05:05+00:00",
            },
        )
    return folder


def small_table(tmp_path: Path, **options):
    return write_table(str(tmp_path / "table"), {MODEL: make_rows(**options)})
