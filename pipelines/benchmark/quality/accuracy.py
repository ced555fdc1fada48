"""Accuracy under one protocol. Run: ganad benchmark accuracy --out FOLDER --detectors A,B ...

Every run trains for a budget fixed beforehand, keeps the last checkpoint and never sees a test
label before it is scored. Beside the detectors stand the trivial ones. A run is one Ray task: on a
cluster they go in parallel, and what is finished is not done again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ganad.archive.listing import list_images
from ganad.detectors import configure
from ganad.errors import GanadError
from ganad.evaluation.metrics import ranking
from ganad.evaluation.trivial import mean_brightness, trivial_scores
from pipelines.benchmark.budget import Budget
from pipelines.benchmark.data import DataSet, open_data_set, tested_rows
from pipelines.benchmark.quality.run import fit_and_score
from pipelines.benchmark.quality.runs import Run, carry_out, place_of, refuse, spread
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
    # All configs are looked at before anything is computed.
    runs = []
    for one in chosen:
        for name in detectors:
            for seed in seeds:
                detector, values = budgets.detector(name), budgets.values(name, seed, one)
                configure(detector, values)
                known = {"data": one.name, "detector": name, "seed": seed}
                known["settings"] = budgets.shown(name)
                place = place_of(folder, one.name, name, seed)
                runs.append(
                    Run(place, known, fit_and_score, (one, detector, values, cores, pixels))
                )
    trivial, failed, good = [], [], []
    for one in chosen:
        its_runs = [run for run in runs if run.known["data"] == one.name]
        try:
            trivial += trivial_rows(one)
            good += its_runs
        except GanadError as error:
            say(str(error))
            failed += [run.failed(str(error)) for run in its_runs]
    for run, problem in carry_out(good, cores, debug):
        if problem is not None:
            failed.append(run.failed(problem))
        _write(trivial, runs, failed, folder)
    table = _write(trivial, runs, failed, folder)
    refuse(failed)
    return table


def trivial_rows(chosen: DataSet) -> list[dict[str, Any]]:
    """The figures of detectors that look at the brightness alone, or at nothing."""
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
    trivial: list[dict[str, Any]], runs: list[Run], failed: list[dict[str, Any]], folder: Path
) -> pa.Table:
    rows = trivial + [row for run in runs for row in run.rows] + failed
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
            *(
                spread(row.get(key) for row in good)
                for key in ("auroc", "aupr", "pixel_auroc", "aupro")
            ),
            f"{good[0]['anomaly_ratio']:.3f}",
            *(_mean(good, key) for key in ("train_s", "train_images_per_s", "score_images_per_s")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _mean(group: list[dict[str, Any]], key: str) -> str:
    values = [row[key] for row in group if row.get(key) is not None]
    return f"{mean(values):,.0f}" if values else ""
