"""Do engines leave a model what it is? Run: ganad benchmark engines --out FOLDER

Each detector is trained once by the budget, and its test images are scored eager and by each
engine: AUROC of all, and whether the engine passes the gate on the images that calibrate the model
(see ganad.engines.gate). The frozen network of a detector, where it has one, is compared by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ganad.detectors import configure
from ganad.engines.backbone import frozen_network
from ganad.engines.compiled import attach
from ganad.engines.known import check
from ganad.engines.trial import Trial, try_backbone, try_engines
from ganad.evaluation.metrics import ranking
from ganad.images.decode import Decoded
from ganad.images.inputs import from_rows
from ganad.model import Model
from ganad.training.fit import fit
from pipelines.benchmark.budget import Budget
from pipelines.benchmark.data import DataSet, labelled_rows, open_data_set, tested_rows
from pipelines.benchmark.quality.runs import Rows, Run, place_of, report
from pipelines.passes.engines import EAGER, MAX_IMAGES

FEATURES = 64
"""Images on which frozen networks are compared."""


def engines(
    out: str,
    detectors: Sequence[str],
    data_sets: Sequence[str],
    seed: int,
    settings: Sequence[str],
    data: str,
    names: Sequence[str],
    *,
    normal: Sequence[str] = (),
    budget: str | None = None,
    cores: int = 1,
    debug: bool = False,
) -> str:
    """Compare the engines of the names with eager for each detector on each data set; other
    arguments as of accuracy().

    Writes OUT/engines.parquet (a row per run and engine) and OUT/engines.md, which is returned.
    Raises ConfigError for an engine that is not there.
    """
    for name in names:
        check(name)
    folder = Path(out).absolute()
    chosen = [open_data_set(name, Path(data), folder / "data", normal) for name in data_sets]
    budgets = Budget.read(budget, settings, Path(data).absolute())
    runs = []
    for one in chosen:
        for detector in detectors:
            values = budgets.values(detector, seed, one)
            configure(budgets.detector(detector), values)
            known = {"data": one.name, "detector": detector, "seed": seed}
            arguments = (one, budgets.detector(detector), values, list(names), cores)
            runs.append(Run(place_of(folder, one.name, detector, seed), known, compared, arguments))
    return report(runs, folder, "engines", as_markdown, cores, debug)


def compared(
    chosen: DataSet,
    detector: str,
    values: Mapping[str, Any],
    names: Sequence[str],
    num_threads: int,
) -> Rows:
    """A row for eager and for each engine."""
    torch.set_num_threads(num_threads)
    model = fit(detector, chosen.train, **values)
    pixels, ids = _calibration_images(model, chosen)
    trials = try_engines(model.detector, model.calibration, pixels, ids, names)
    seen: dict[str, Trial] = {}
    if frozen_network(model.detector) is not None:
        images = model.detector.patches(pixels)[:FEATURES]
        seen = {one.engine: one for one in try_backbone(model.detector, images, names)}
    tested = tested_rows(chosen)
    decoded = list(from_rows(tested, model.preprocessing))
    abnormal = {row["image_id"]: bool(row["abnormal"]) for row in tested}
    rows = []
    for trial in trials:
        row: dict[str, Any] = trial.facts()
        if trial.refused is None:
            attach(model.detector, trial.engine)
            row["auroc"] = _auroc(model, decoded, abnormal)
        if trial.engine in seen:
            row["features"] = seen[trial.engine].facts()
        rows.append(row)
    return rows


def _calibration_images(model: Model, chosen: DataSet) -> tuple[torch.Tensor, list[str]]:
    """The images that calibrate the model, uint8 (n, c, h, w), and their ids."""
    assert model.calibration is not None
    known = set(model.calibration.ids)
    rows = [row for row in labelled_rows(chosen.train) if row["image_id"] in known][:MAX_IMAGES]
    images, ids = [], []
    for decoded, names in from_rows(rows, model.preprocessing):
        images += [one.image for one in decoded if one.image is not None]
        ids += names
    return torch.from_numpy(np.stack(images)), ids


def _auroc(
    model: Model,
    tested: Sequence[tuple[Sequence[Decoded], Sequence[str]]],
    abnormal: Mapping[str, bool],
) -> float | None:
    scores, truth = [], []
    for decoded, ids in tested:
        scores.append(model.score_decoded(decoded, ids).score)
        truth += [abnormal[one] for one in ids]
    found = np.concatenate(scores)
    good = np.isfinite(found)
    return ranking(found[good], np.array(truth)[good]).auroc


def as_markdown(rows: Rows) -> str:
    """A line for each data set, detector and engine other than eager."""
    lines = [
        "| data | detector | engine | times eager | AUROC | eager | images | Spearman "
        "| p moves by | score moves by | gate | frozen network: times eager | differs by |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    eager = {(row["data"], row["detector"]): row for row in rows if row["engine"] == EAGER}
    for row in rows:
        if row["engine"] == EAGER:
            continue
        base = eager[row["data"], row["detector"]]
        cells = [row["data"], row["detector"], row["engine"]]
        if "refused" in row:
            why = row["refused"].partition(": use --engine")[0].replace("|", "¦")
            cells += ["", "", f"{base['auroc']:.4f}", "", "", "", "", why]
        else:
            found = row["agreement"]
            cells += [
                f"{row['images_per_s'] / base['images_per_s']:.2f}",
                f"{row['auroc']:.4f}",
                f"{base['auroc']:.4f}",
                str(found["n"]),
                *(
                    "" if found[key] is None else form.format(found[key])
                    for key, form in (
                        ("spearman", "{:.7f}"),
                        ("p_difference", "{:.4f}"),
                        ("score_difference", "{:.1e}"),
                    )
                ),
                "passed" if row["passed"] else "not passed",
            ]
        cells += _frozen(row, base)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _frozen(row: Mapping[str, Any], base: Mapping[str, Any]) -> list[str]:
    seen = row.get("features")
    if seen is None or "refused" in seen:
        return ["", "" if seen is None else "refused"]
    rate = base["features"]["images_per_s"]
    difference = seen["agreement"]["difference"]
    shown = "not finite" if difference is None else f"{difference:.1e}"
    return [f"{seen['images_per_s'] / rate:.2f}", shown]
