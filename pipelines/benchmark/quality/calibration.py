"""Do p-values keep their promise on fresh normal images? Run: ganad benchmark calibration --out
FOLDER

A seed divides all normal images of a set, those of its test too, in two halves. One half fits and
calibrates a detector, by one held-out part and crossed in folds; the other half is fresh. A
p-value keeps its promise if a share of at most a of fresh normal images has p < a, for every a.
How many such images there are varies with the fresh images, and with those that calibrate: that
exact p-values give k of m has the probability of a beta-binomial distribution. Labels of anomalies
are used for recall and AUROC alone, which are side information.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from scipy.stats import betabinom, binomtest

from ganad.archive.rows import Row
from ganad.detectors import configure
from ganad.evaluation.metrics import ranking
from ganad.images.decode import Preprocessing
from ganad.images.inputs import from_rows
from ganad.training.fit import fit
from pipelines.benchmark.budget import Budget
from pipelines.benchmark.data import DataSet, labelled_rows, open_data_set, tested_rows
from pipelines.benchmark.quality.runs import Rows, Run, place_of, report, spread

FRESH = 0.5
"""Share of the normal images that neither fit nor calibrate."""
ALPHAS = (0.01, 0.05, 0.1)
CONFIDENCE = 0.95


def calibration(
    out: str,
    detectors: Sequence[str],
    data_sets: Sequence[str],
    seeds: Sequence[int],
    settings: Sequence[str],
    data: str,
    *,
    normal: Sequence[str] = (),
    budget: str | None = None,
    folds: int = 5,
    cores: int = 1,
    debug: bool = False,
) -> str:
    """Fit each detector to each half with one held-out part and crossed in folds; arguments as of
    accuracy().

    Writes OUT/calibration.parquet (a row per run and way) and OUT/calibration.md, which is
    returned.
    """
    folder = Path(out).absolute()
    chosen = [open_data_set(name, Path(data), folder / "data", normal) for name in data_sets]
    budgets = Budget.read(budget, settings, Path(data).absolute())
    runs = []
    for one in chosen:
        for name in detectors:
            for seed in seeds:
                values = budgets.values(name, seed, one)
                configure(budgets.detector(name), {**values, "calibration_folds": folds})
                known = {"data": one.name, "detector": name, "seed": seed}
                arguments = (one, budgets.detector(name), values, folds, cores)
                runs.append(Run(place_of(folder, one.name, name, seed), known, tried, arguments))
    return report(runs, folder, "calibration", as_markdown, cores, debug)


def tried(
    chosen: DataSet, detector: str, values: Mapping[str, Any], folds: int, num_threads: int
) -> Rows:
    """Two rows: of p-values from held-out images, and of crossed ones."""
    torch.set_num_threads(num_threads)
    config = configure(detector, values)
    preprocessing = Preprocessing(image_size=config.image_size, channels=config.channels)
    tested = tested_rows(chosen)
    normal = _pixels(
        [*labelled_rows(chosen.train), *(row for row in tested if not row["abnormal"])],
        preprocessing,
    )
    abnormal = _pixels([row for row in tested if row["abnormal"]], preprocessing)
    order = np.random.default_rng(config.seed).permutation(len(normal))
    num_fresh = int(FRESH * len(normal))
    fresh, own = normal[order[:num_fresh]], normal[order[num_fresh:]]
    rows = []
    for way, k in (("held out", 0), (f"crossed in {folds}", folds)):
        model = fit(detector, own, **{**values, "calibration_folds": k})
        assert model.calibration is not None
        scores = [model.detector.score(torch.from_numpy(some)).score for some in (fresh, abnormal)]
        p, p_abnormal = (model.calibration.p_values(some) for some in scores)
        labels = np.repeat([False, True], [len(p), len(p_abnormal)])
        row = {
            "way": way,
            "num_own": len(own),
            "num_calibration": len(model.calibration),
            "num_fresh": num_fresh,
            "smallest_p": float(p.min()),
            "recall": float((p_abnormal < ALPHAS[0]).mean()),
            "auroc": ranking(np.concatenate(scores), labels).auroc,
        }
        for alpha in ALPHAS:
            row[f"below_{alpha:g}"] = int((p < alpha).sum())
        rows.append(row)
    return rows


def _pixels(rows: Sequence[Row], preprocessing: Preprocessing) -> np.ndarray:
    """uint8 (n, c, h, w) of the images that can be read."""
    decoded = [one.image for some, _ in from_rows(rows, preprocessing) for one in some]
    return np.stack([image for image in decoded if image is not None])


def binomial(below: int, num: int) -> tuple[float, float]:
    """The exact 95 % interval (Clopper, Pearson 1934) of a share, below of num."""
    found = binomtest(below, num).proportion_ci(CONFIDENCE)
    return float(found.low), float(found.high)


def expected(alpha: float, num_calibration: int, num_fresh: int) -> tuple[float, float]:
    """The shares of num_fresh images between which p < alpha falls with 95 % probability or more,
    if p-values are exact.

    p < alpha says that fewer than alpha (n + 1) of image and calibration scores are as large: with
    probability U, the l-th smallest of n uniform ones, l = ⌈alpha (n + 1)⌉ − 1.
    """
    rank = int(np.ceil(alpha * (num_calibration + 1) - 1e-9)) - 1
    if rank == 0:
        return 0.0, 0.0
    counts = betabinom(num_fresh, rank, num_calibration + 1 - rank)
    low, high = counts.interval(CONFIDENCE)
    return float(low) / num_fresh, float(high) / num_fresh


def as_markdown(rows: Rows) -> str:
    """A line for each data set, detector, way and a: means over seeds, with the binomial interval
    of the mean share for the images of one seed."""
    lines = [
        "| data | detector | p-values | calibrate | fresh | a | share with p < a | binomial 95 % "
        "| exact ones give | seeds inside | smallest p | recall at p < .01 | AUROC |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, ...], Rows] = {}
    for row in rows:
        groups.setdefault((row["data"], row["detector"], row["way"]), []).append(row)
    for key, group in groups.items():
        num, num_fresh = (
            round(mean(r[c] for r in group)) for c in ("num_calibration", "num_fresh")
        )
        for alpha in ALPHAS:
            below = [row[f"below_{alpha:g}"] for row in group]
            ranges = [expected(alpha, r["num_calibration"], r["num_fresh"]) for r in group]
            inside = sum(
                low <= count / row["num_fresh"] <= high
                for count, row, (low, high) in zip(below, group, ranges, strict=True)
            )
            cells = [
                *key,
                f"{num:,}",
                f"{num_fresh:,}",
                f"{alpha:g}",
                _shares(
                    [count / row["num_fresh"] for count, row in zip(below, group, strict=True)]
                ),
                "{:.4f} to {:.4f}".format(*binomial(round(mean(below)), num_fresh)),
                "{:.4f} to {:.4f}".format(*expected(alpha, num, num_fresh)),
                f"{inside} of {len(group)}",
            ]
            beside = ["", "", ""]
            if alpha == ALPHAS[0]:
                smallest = min(row["smallest_p"] for row in group)
                aurocs = [row["auroc"] for row in group]
                beside = [f"{smallest:.2g}", spread([r["recall"] for r in group]), spread(aurocs)]
            lines.append(f"| {' | '.join([*cells, *beside])} |")
    return "\n".join(lines) + "\n"


def _shares(values: Sequence[float]) -> str:
    return f"{mean(values):.4f} ({', '.join(f'{value:.4f}' for value in values)})"
