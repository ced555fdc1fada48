"""Accuracy under one protocol. Run: ganad benchmark accuracy --out FOLDER --detectors A,B ...

Every run trains for a budget fixed beforehand, keeps the last checkpoint and never sees a test
label before it is scored. Beside the detectors stand the trivial ones. A run is one Ray task: on a
cluster they go in parallel, and what is finished is not done again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from ganad.archive.listing import list_images
from ganad.detectors import configure
from ganad.errors import GanadError, TrainingError
from ganad.evaluation.metrics import ranking
from ganad.evaluation.trivial import mean_brightness, trivial_scores
from pipelines.benchmark.budget import Budget
from pipelines.benchmark.data import DataSet, open_data_set, tested_rows
from pipelines.benchmark.run import fit_and_score
from pipelines.cluster.connection import connected
from pipelines.console.progress import say

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
        ("pixel_auroc", pa.float64()),
        ("aupro", pa.float64()),
        ("train_s", pa.float64()),
        ("train_images_per_s", pa.float64()),
        ("score_images_per_s", pa.float64()),
        ("error", pa.string()),
    ]
)
"""label: null for all kinds of defect together. pixel_auroc, aupro: null without heat maps,
masks or --pixels. Seconds and rates are of one core's time (see fit_and_score). error: why a
run has no figures."""


def accuracy(
    out: str,
    detectors: Sequence[str],
    data_sets: Sequence[str],
    seeds: Sequence[int],
    settings: Sequence[str],
    data: str,
    *,
    normal: Sequence[str] = (),
    budget: str | None = None,
    cores: int = 1,
    pixels: bool = False,
    debug: bool = False,
) -> pa.Table:
    """Train, score and evaluate each detector on each data set with each seed.

    budget names a file of settings by detector (see pipelines.benchmark.budget); settings are
    config keys as for `ganad train --set`, for all detectors. cores: threads of a run; each takes
    a GPU where there are some. normal: labels of the normal test images of folders. pixels: heat
    maps are compared with masks, too. A run that fails does not stop the others. Writes
    OUT/accuracy.parquet (a row per run and kind of defect) and OUT/accuracy.md (means ± standard
    deviation over seeds); returns the former.
    """
    folder = Path(out).absolute()
    chosen = [open_data_set(name, Path(data), folder / "data", normal) for name in data_sets]
    budgets = Budget.read(budget, settings, Path(data).absolute())
    runs = [(one, name, seed) for one in chosen for name in detectors for seed in seeds]
    # All configs are looked at before anything is computed.
    plans = [(*run, budgets.values(run[1], run[2], run[0])) for run in runs]
    for _, name, _, values in plans:
        configure(budgets.detector(name), values)
    results = [_result(folder, one, name, seed) for one, name, seed in runs]
    trivial, failed = [], []
    for one in chosen:
        try:
            trivial += _trivial(one)
        except GanadError as error:
            say(str(error))
            failed += [_failure(*run, str(error)) for run in runs if run[0] == one]
            plans = [plan for plan in plans if plan[0] != one]
    with connected(debug):
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        task = ray.remote(num_cpus=cores, num_gpus=gpus, max_retries=3)(fit_and_score)
        waiting = {}
        for one, name, seed, values in plans:
            if not _result(folder, one, name, seed).exists():
                run = task.remote(one, budgets.detector(name), values, cores, pixels)
                waiting[run] = (one, name, seed)
        while waiting:
            (done,), _ = ray.wait(list(waiting))
            one, name, seed = waiting.pop(done)
            try:
                found = ray.get(done)
            except ray.exceptions.RayTaskError as error:
                failed.append(_failure(one, name, seed, str(error.cause)))
                say(f"{one.name}, {name}, seed {seed}: {error.cause}")
                continue
            known = {"data": one.name, "detector": name, "seed": seed}
            known["settings"] = budgets.shown(name)
            _keep(_result(folder, one, name, seed), [{**known, **row} for row in found])
            say(
                f"{one.name}, {name}, seed {seed}: AUROC {found[0]['auroc']:.3f} "
                f"({len(waiting)} runs to go)"
            )
            _write(trivial, results, failed, folder)
    table = _write(trivial, results, failed, folder)
    if failed:
        raise TrainingError(f"{len(failed)} runs failed, the first: {failed[0]['error']}")
    return table


def _failure(chosen: DataSet, detector: str, seed: int, error: str) -> dict[str, Any]:
    return {"data": chosen.name, "detector": detector, "seed": seed, "error": error}


def _result(folder: Path, chosen: DataSet, detector: str, seed: int) -> Path:
    data_set = chosen.name.replace(":", "-").replace("/", "_")
    return folder / "runs" / f"{data_set}-{detector}-seed{seed}.json"


def _keep(place: Path, rows: list[dict[str, Any]]) -> None:
    """A result that is there is whole."""
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = place.with_suffix(".part")
    fresh.write_text(json.dumps(rows, indent=2))
    fresh.rename(place)


def _trivial(chosen: DataSet) -> list[dict[str, Any]]:
    levels, _ = mean_brightness(list(list_images([chosen.train])))
    test = tested_rows(chosen)
    tested, ids = mean_brightness(test)
    abnormal = {row["image_id"]: bool(row["abnormal"]) for row in test}
    truth = np.array([abnormal[one] for one in ids])
    rows = []
    for name, scores in trivial_scores(float(levels.mean()), tested).items():
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


def _write(
    trivial: list[dict[str, Any]], results: list[Path], failed: list[dict[str, Any]], folder: Path
) -> pa.Table:
    rows = trivial + [
        row for place in results if place.exists() for row in json.loads(place.read_text())
    ]
    rows += failed
    table = pa.Table.from_pylist(
        [{column: row.get(column) for column in SCHEMA.names} for row in rows], schema=SCHEMA
    )
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / "accuracy.parquet")
    (folder / "accuracy.md").write_text(as_markdown(rows))
    return table


def as_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A line per data set and detector: mean ± sample standard deviation over seeds, or why there
    is none."""
    lines = [
        "| data | detector | budget | seeds | AUROC | AUPR | pixel AUROC | AUPRO | anomaly ratio "
        "| training s | images/s trained | images/s scored |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        if row.get("label") is None:
            groups.setdefault((row["data"], row["detector"]), []).append(row)
    for (data, detector), group in groups.items():
        good = [row for row in group if not row.get("error")]
        if not good:
            why = group[0]["error"].replace("|", "¦").replace("\n", " ")
            lines.append(
                f"| {data} | {detector} | | 0 of {len(group)} | failed: {why} |" + " |" * 7
            )
            continue
        cells = [
            data,
            detector,
            good[0].get("settings", ""),
            str(len(good)) if good == group else f"{len(good)} of {len(group)}",
            _spread([row["auroc"] for row in good]),
            _spread([row["aupr"] for row in good]),
            *(
                _spread([row[key] for row in good if row.get(key)])
                for key in ("pixel_auroc", "aupro")
            ),
            f"{good[0]['anomaly_ratio']:.3f}",
            *(_mean(good, key) for key in ("train_s", "train_images_per_s", "score_images_per_s")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _spread(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.3f}" if values else ""
    return f"{mean(values):.3f} ± {stdev(values):.3f}"


def _mean(group: list[dict[str, Any]], key: str) -> str:
    values = [row[key] for row in group if row.get(key) is not None]
    return f"{mean(values):,.0f}" if values else ""
