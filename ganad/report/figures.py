"""Computes the numbers of the report's charts in DuckDB, without loading all scores."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from ganad.report.charts import Histogram, Uniformity, score_range
from ganad.scores.sql import Session

ALPHAS = (0.05, 0.01, 0.001)
_BINS, _FEW_BINS, _FEW = 56, 28, 300
_CURVE_POINTS = 400
_MANY = 10_000


@dataclass(frozen=True)
class Source:
    """One model's scores in a view: `labelled` if the table has labels, else `scores`."""

    session: Session
    view: str
    model: str

    @property
    def labelled(self) -> bool:
        return self.view == "labelled"

    @property
    def group(self) -> str:
        """SQL expression for the group of a row: normal, abnormal, or all without labels."""
        return "if(abnormal, 'abnormal', 'normal')" if self.labelled else "'all'"

    def rows(self, select: str, rest: str = "") -> list[dict[str, Any]]:
        """The result of SELECT over this model's scores; rest: SQL after the WHERE condition."""
        sql = f"SELECT {select} FROM {self.view} WHERE model = $1 AND score IS NOT NULL {rest}"
        return list(self.session.query(sql, self.model).to_pylist())


@dataclass(frozen=True)
class Threshold:
    """Images flagged by p < alpha."""

    alpha: float
    score: float | None
    """An image is flagged if its score is above this; None if all are flagged."""
    flagged: dict[str, tuple[int, int]]
    """Group -> (flagged images, all images)."""


def histogram(source: Source, threshold: Threshold | None) -> Histogram | None:
    """The histogram of scores by group; None without any score."""
    limits = source.rows(
        "count(*) AS n, min(score) AS low, max(score) AS high, approx_quantile(score, 0.5) AS mid"
    )
    num, low, high, mid = limits[0].values()
    if num == 0:
        return None
    low, high, log = score_range(low, high, mid)
    bins = _BINS if num >= _FEW else _FEW_BINS
    start, end = (math.log(low), math.log(high)) if log else (low, high)
    place = f"(({'ln(score)' if log else 'score'}) - ({start!r})) / ({end - start!r}) * {bins}"
    rows = source.rows(
        f"{source.group} AS kind, greatest(0, least({bins - 1}, floor({place})))::INT AS bin, "
        f"count(*) AS n",
        "GROUP BY ALL",
    )
    counts: dict[str, np.ndarray] = {}
    for row in sorted(rows, key=lambda row: str(row["kind"]), reverse=True):  # abnormal on top
        counts.setdefault(row["kind"], np.zeros(bins, np.int64))[row["bin"]] += row["n"]
    edges = np.linspace(start, end, bins + 1)
    return Histogram(
        np.exp(edges) if log else edges,
        counts,
        log,
        shares=source.labelled,
        threshold=None if threshold is None else threshold.score,
        threshold_name=f"p < {threshold.alpha:g} →" if threshold is not None else "",
    )


def uniformity(source: Source, num_calibration: int | None) -> Uniformity | None:
    """The curve of p-values by group, with the 95 % band of normal images; None without
    p-values."""
    rows = source.rows(
        f"{source.group} AS kind, p_value, count(*) AS n",
        "AND p_value IS NOT NULL GROUP BY ALL ORDER BY p_value",
    )
    if not rows:
        return None
    groups: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    sizes: dict[str, int] = {}
    for group in sorted({row["kind"] for row in rows}, reverse=True):
        p_values = np.array([row["p_value"] for row in rows if row["kind"] == group])
        counts = np.array([row["n"] for row in rows if row["kind"] == group])
        sizes[group] = int(counts.sum())
        groups[group] = _thinned(p_values, np.cumsum(counts) / counts.sum())
    smallest = min(float(p_values[0]) for p_values, _ in groups.values())
    lowest = min(0.5, smallest if num_calibration is None else 1 / (num_calibration + 1))
    reference = next((group for group in ("normal", "all") if group in groups), None)
    band = None
    if num_calibration is not None and reference is not None:
        band = chance_band(num_calibration, sizes[reference])
    return Uniformity(groups, lowest, band)


def chance_band(num_calibration: int, num: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(a, lower, upper): the 95 % interval of the fraction of num new normal images with p <= a.

    With n calibration images and a = k / (n + 1), the false-positive rate is distributed as
    Beta(k, n + 1 - k), and the number flagged as beta-binomial (Vovk 2012, Conditional validity of
    inductive conformal predictors). Each array: float64, one element per k.
    """
    k = np.unique(np.rint(np.geomspace(1, num_calibration, 60)).astype(int))
    if num > _MANY:  # sampling noise of the images is negligible
        low, high = (stats.beta.ppf(q, k, num_calibration + 1 - k) for q in (0.025, 0.975))
    else:
        low, high = (
            stats.betabinom.ppf(q, num, k, num_calibration + 1 - k) / num for q in (0.025, 0.975)
        )
    return k / (num_calibration + 1), low, high


def thresholds(source: Source) -> list[Threshold]:
    """Images flagged by p < 0.05, 0.01 and 0.001; levels that flag nothing are omitted."""
    of_levels = ", ".join(
        f"count(*) FILTER (p_value < {alpha}) AS flagged_{level}, "
        f"max(score) FILTER (p_value >= {alpha}) AS score_{level}"
        for level, alpha in enumerate(ALPHAS)
    )
    rows = source.rows(
        f"{source.group} AS kind, count(*) AS n, {of_levels}",
        "AND p_value IS NOT NULL GROUP BY ALL ORDER BY kind DESC",
    )
    result = []
    for level, alpha in enumerate(ALPHAS):
        flagged = {row["kind"]: (row[f"flagged_{level}"], row["n"]) for row in rows}
        if not any(count for count, _ in flagged.values()):
            continue
        scores = [row[f"score_{level}"] for row in rows if row[f"score_{level}"] is not None]
        result.append(Threshold(alpha, max(scores, default=None), flagged))
    return result


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most _CURVE_POINTS points of a curve, evenly spaced in the logarithm of x."""
    if len(x) <= _CURVE_POINTS:
        return x, y
    targets = np.geomspace(x[0], x[-1], _CURVE_POINTS)
    chosen = np.unique(np.searchsorted(x, targets, side="right").clip(1) - 1)
    return x[chosen], y[chosen]
