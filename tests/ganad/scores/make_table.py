"""A small score table written as ganad score writes one."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from ganad.calibration import Calibration
from ganad.scores.files import ScoreFile
from ganad.scores.records import ManifestFacts, Run, write_run
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


def write_something_else(folder):
    """A Parquet file at the place of a part, with a column that none has; returns the folder."""
    table = pa.table({"x": [1]})
    storage.write_table(ScoreFile(str(folder), MODEL, 0, 0).uri, table)
    return str(folder)


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
    """Write parts, then the record of each model's run; returns the folder as given.

    models: path and config of those that are not gone. manifest: its facts.
    """
    facts = {one["model"]: one for one in models}
    manifest = manifest or {"uri": f"{folder}/gone", "digest": "d", "images": 1}
    for model, rows in rows_by_model.items():
        for number, start in enumerate(range(0, len(rows), part_rows)):
            some = [{**row, "model": model} for row in rows[start : start + part_rows]]
            table = pa.Table.from_pylist(some, schema=SCHEMA)
            storage.write_table(ScoreFile(folder, model, number, number).uri, table)
        failed = sum(row.get("error") is not None for row in rows)
        counts = {"in": len(rows), "scored": len(rows) - failed, "failed": failed}
        if run:
            record = Run(
                **{"path": f"{folder}/gone", **facts.get(model, {}), "model": model},
                command=["ganad", "score", "model", "images"],
                manifest=ManifestFacts(**manifest),
                counts=counts,
                versions={"ganad": "0.1.0"},
                started_at=datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC),
                finished_at=datetime(2025, 1, 2, 3, 5, 5, tzinfo=UTC),
            )
            write_run(storage.absolute(folder), record)
    return folder


def small_table(tmp_path: Path, **options):
    return write_table(str(tmp_path / "table"), {MODEL: make_rows(**options)})


def killed_at_removal(monkeypatch, number):
    """From now on, storage.remove removes so many files, and then raises KeyboardInterrupt."""
    remove, num = storage.remove, 0

    def killed(uri):
        nonlocal num
        if num == number:
            raise KeyboardInterrupt
        num += 1
        remove(uri)

    monkeypatch.setattr(storage, "remove", killed)
