"""Accuracy under one protocol. Run: ganad benchmark accuracy --out FOLDER --detectors A,B ...

Every run trains for a budget fixed beforehand, keeps the last checkpoint and never sees a test
label before it is scored. Beside the detectors stand the trivial ones. Runs resume: what is
finished is not done again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ganad.archive.manifest import open_manifest
from ganad.archive.selection import normal_rows
from ganad.evaluation import evaluate
from ganad.metrics import ranking
from ganad.table import ScoreTable
from ganad.trivial import mean_brightness, trivial_scores
from pipelines.benchmark_data import DataSet, open_data_set
from pipelines.cluster import connected
from pipelines.index import index
from pipelines.progress import say
from pipelines.score import score
from pipelines.settings import merge_settings
from pipelines.train import train

SCHEMA = pa.schema(
    [
        ("data", pa.string()),
        ("detector", pa.string()),
        ("settings", pa.string()),
        ("seed", pa.int64()),
        ("label", pa.string()),
        ("num", pa.int64()),
        ("num_abnormal", pa.int64()),
        ("anomaly_ratio", pa.float64()),
        ("auroc", pa.float64()),
        ("aupr", pa.float64()),
        ("train_s", pa.float64()),
        ("train_images_per_s", pa.float64()),
        ("score_s", pa.float64()),
        ("score_images_per_s", pa.float64()),
    ]
)
"""label: null for all kinds of defect together. train_s, score_s: the whole job's wall time, start
of its workers included, on a Ray that runs already."""


def accuracy(
    out: str,
    detectors: Sequence[str],
    data_sets: Sequence[str],
    seeds: Sequence[int],
    settings: Sequence[str],
    data: str,
    *,
    debug: bool = False,
) -> pa.Table:
    """Train, score and evaluate each detector on each data set with each seed.

    settings are config keys as for `ganad train --set`, for all detectors that have them. Writes
    OUT/accuracy.parquet (a row per run and kind of defect) and OUT/accuracy.md (means ± standard
    deviation over seeds); returns the former.
    """
    folder = Path(out)
    rows: list[dict[str, Any]] = []
    with connected(debug):
        for name in data_sets:
            chosen = open_data_set(name, Path(data), folder / "data")
            manifests = _manifests(chosen, folder / "data" / _folder_name(name))
            rows += _trivial(chosen, manifests)
            for detector in detectors:
                for seed in seeds:
                    rows += _run(folder, chosen, manifests, detector, seed, settings)
                    _write(rows, folder)
    return _write(rows, folder)


def _manifests(chosen: DataSet, folder: Path) -> tuple[str, str]:
    places = (str(folder / "train.manifest"), str(folder / "test.manifest"))
    for source, place in zip((chosen.train, chosen.test), places, strict=True):
        if not Path(place, "manifest.json").exists():
            index([source], place)
    return places


def _folder_name(data_set: str) -> str:
    return data_set.replace(":", "-").replace("/", "_")


def _trivial(chosen: DataSet, manifests: tuple[str, str]) -> list[dict[str, Any]]:
    train_rows = normal_rows(open_manifest(manifests[0]).table(), chosen.train)
    test = open_manifest(manifests[1]).table()
    levels, _ = mean_brightness(train_rows.to_pylist())
    tested, ids = mean_brightness(test.to_pylist())
    abnormal = dict(zip(test["image_id"].to_pylist(), test["abnormal"].to_pylist(), strict=True))
    truth = np.array([bool(abnormal[one]) for one in ids])
    rows = []
    for name, scores in trivial_scores(levels, tested).items():
        found = ranking(scores, truth)
        rows.append(
            {
                "data": chosen.name,
                "detector": name,
                "settings": "",
                "seed": 0,
                "num": found.num,
                "num_abnormal": found.num_abnormal,
                "anomaly_ratio": found.anomaly_ratio,
                "auroc": found.auroc,
                "aupr": found.aupr,
            }
        )
    return rows


def _run(
    folder: Path,
    chosen: DataSet,
    manifests: tuple[str, str],
    detector: str,
    seed: int,
    settings: Sequence[str],
) -> list[dict[str, Any]]:
    """One training, one scoring; finished runs are read back."""
    run = folder / "runs" / f"{_folder_name(chosen.name)}-{detector}-seed{seed}"
    result = run / "result.json"
    if result.exists():
        return list(json.loads(result.read_text()))
    say(f"{chosen.name}, {detector}, seed {seed}")
    values = merge_settings(detector, None, [*chosen.settings, *settings], seed)
    model, table = str(run / "model"), str(run / "scores")
    began = time.perf_counter()
    info = train(detector, [manifests[0]], model, values=values)
    train_s = time.perf_counter() - began
    facts = info["training"]
    seen = facts.get("steps", 1) * facts.get("batch_size", facts["num_train"])
    record = score([model], [manifests[1]], table)
    score_s = record["timings"]["wall_s"]
    rows = [
        {
            "data": chosen.name,
            "detector": detector,
            "settings": " ".join(settings),
            "seed": seed,
            "label": group.label,
            "num": group.ranking.num,
            "num_abnormal": group.ranking.num_abnormal,
            "anomaly_ratio": group.ranking.anomaly_ratio,
            "auroc": group.ranking.auroc,
            "aupr": group.ranking.aupr,
            "train_s": train_s,
            "train_images_per_s": facts.get("images_per_second", seen / train_s),
            "score_s": score_s,
            "score_images_per_s": record["timings"]["images_scored_now"] / score_s,
        }
        for group in evaluate(ScoreTable(table)).groups
    ]
    result.write_text(json.dumps(rows, indent=2))
    return rows


def _write(rows: list[dict[str, Any]], folder: Path) -> pa.Table:
    table = pa.Table.from_pylist(
        [{column: row.get(column) for column in SCHEMA.names} for row in rows], schema=SCHEMA
    )
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / "accuracy.parquet")
    (folder / "accuracy.md").write_text(as_markdown(rows))
    return table


def as_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A line per data set and detector: mean ± sample standard deviation over seeds."""
    lines = [
        "| data | detector | seeds | AUROC | AUPR | anomaly ratio | training s | images/s trained "
        "| images/s scored |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        if row.get("label") is None:
            groups.setdefault((row["data"], row["detector"]), []).append(row)
    for (data, detector), group in groups.items():
        cells = [
            data,
            detector,
            str(len(group)),
            _spread([row["auroc"] for row in group]),
            _spread([row["aupr"] for row in group]),
            f"{group[0]['anomaly_ratio']:.3f}",
            *(_mean(group, key) for key in ("train_s", "train_images_per_s", "score_images_per_s")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _spread(values: list[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{mean(values):.3f} ± {stdev(values):.3f}"


def _mean(group: list[dict[str, Any]], key: str) -> str:
    values = [row[key] for row in group if row.get(key) is not None]
    return f"{mean(values):,.0f}" if values else ""
