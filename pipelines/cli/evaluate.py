"""Evaluates a score table with labels. Run: ganad evaluate TABLE [--labels CSV] [--pixels]"""

from __future__ import annotations

import sys
from typing import Any, TextIO

from ganad.evaluation.delong import CHANCE_AUROC, Interval
from ganad.evaluation.evaluate import ALPHA, Evaluation, Group
from ganad.evaluation.evaluate import evaluate as evaluate_table
from ganad.evaluation.metrics import CHANCE_AUPRO, PixelResult
from ganad.evaluation.standing import Standing
from ganad.evaluation.thresholds import CheapestThreshold, Prices
from ganad.scores.table import ScoreTable
from pipelines.console.output import check_format, write_csv, write_json, write_lines, write_table


def evaluate(
    table: str,
    labels: str | None = None,
    format: str = "table",
    pixels: bool = False,
    brightness: bool | None = None,
    cost: str | None = None,
    out: TextIO | None = None,
) -> None:
    """Print the metrics of every model, best first, each with the value of a detector without
    skill.

    labels: a CSV that replaces the table's labels. pixels: also compare anomaly maps with masks,
    which fetches the images and runs the models again. brightness: compare the models with the
    brightness of the images; None compares if they are few and local. cost: FP:FN, the costs of a
    false alarm and of a missed defect. out: standard output by default. Notes follow the table, or
    go to standard error for the other formats.
    """
    out = out or sys.stdout
    check_format(format)
    prices = None if cost is None else Prices.parse(cost)
    result = evaluate_table(ScoreTable(table), labels, pixels, brightness=brightness, prices=prices)
    if format == "table":
        _write_for_people(result, cost, out)
        write_lines((f"note: {note}" for note in result.notes), out)
        return
    rows = [_row(group, result) for group in result.groups]
    if format == "json":
        write_json(rows, out)
    else:
        write_csv(list(rows[0]), rows, out)
    write_lines((f"note: {note}" for note in result.notes), sys.stderr)


def _row(group: Group, result: Evaluation) -> dict[str, Any]:
    """All metrics of a group by name; those of the whole model are in the row of all labels."""
    ranking, flagged = group.ranking, group.flagged
    interval = ranking.auroc_interval
    row: dict[str, Any] = {
        "model": group.model,
        "label": group.label,
        "num": ranking.num,
        "num_abnormal": ranking.num_abnormal,
        "anomaly_ratio": ranking.anomaly_ratio,
        "auroc": ranking.auroc,
        "auroc_low": interval and interval.low,
        "auroc_high": interval and interval.high,
        "auroc_chance": CHANCE_AUROC,
        "aupr": ranking.aupr,
        "aupr_chance": ranking.anomaly_ratio,
        "best_f1_oracle_threshold": ranking.best_f1,
        "f1_flag_everything": ranking.flag_everything_f1,
        "alpha": ALPHA,
        "f1_at_alpha": flagged and flagged.f1,
        "precision_at_alpha": flagged and flagged.precision,
        "precision_chance": ranking.anomaly_ratio,
        "recall_at_alpha": flagged and flagged.recall,
        "false_positive_rate_at_alpha": flagged and flagged.false_positive_rate,
        "recall_chance": ALPHA,
        "reason": ranking.reason,
    }
    is_whole = group.label is None
    standing = next((s for s in result.standings if s.model == group.model), None)
    row |= _standing(standing if is_whole else None)
    if group.model in result.pixels:
        row |= _pixels(result.pixels[group.model] if is_whole else None)
    if group.model in result.cheapest:
        row |= _cost(result.cheapest[group.model] if is_whole else None)
    return row


def _standing(standing: Standing | None) -> dict[str, Any]:
    behind, over = (standing.behind, standing.over_trivial) if standing else (None, None)
    return {
        "auroc_behind_best": behind and behind.value,
        "auroc_behind_best_low": behind and behind.interval.low,
        "auroc_behind_best_high": behind and behind.interval.high,
        "auroc_over_brightness": over and over.value,
        "auroc_over_brightness_low": over and over.interval.low,
        "auroc_over_brightness_high": over and over.interval.high,
    }


def _pixels(pixels: PixelResult | None) -> dict[str, Any]:
    return {
        "pixel_auroc": pixels and pixels.auroc,
        "pixel_auroc_chance": CHANCE_AUROC,
        "aupro": pixels and pixels.aupro,
        "aupro_chance": CHANCE_AUPRO,
        "pixel_reason": pixels and pixels.reason,
    }


def _cost(cheapest: CheapestThreshold | None) -> dict[str, Any]:
    return {
        "cost_threshold": cheapest and cheapest.threshold,
        "cost_per_image": cheapest and cheapest.cost,
        "cost_per_image_elsewhere": cheapest and cheapest.cost_elsewhere,
        "cost_flag_nothing": cheapest and cheapest.flag_nothing,
        "cost_flag_everything": cheapest and cheapest.flag_everything,
    }


def _write_for_people(result: Evaluation, cost: str | None, out: TextIO) -> None:
    """Print two tables per model, ranking and flags at p < 0.05, with baselines in brackets."""
    for model in dict.fromkeys(group.model for group in result.groups):
        groups = [group for group in result.groups if group.model == model]
        write_lines([model], out)
        for cells in (_ranking_cells, _flagged_cells):
            rows = [row for group in groups if (row := cells(group))]
            if rows:
                write_table(list(rows[0]), rows, out)
                write_lines([""], out)
        if model in result.pixels:
            write_lines([_pixel_line(result.pixels[model]), ""], out)
        if model in result.cheapest:
            write_lines([_cost_line(result.cheapest[model], cost), ""], out)
    if result.findings:
        write_lines([*(f"{finding}." for finding in result.findings), ""], out)
    write_lines(
        [
            f"In brackets: the value that a detector without skill reaches. 95%: confidence "
            f"interval of the AUROC. Best F1 uses the threshold that is optimal for these labels; "
            f"its baseline flags every image. p < {ALPHA} needs no labels: on average it flags at "
            f"most {ALPHA:.0%} of normal images like those of the calibration."
        ],
        out,
    )


def _ranking_cells(group: Group) -> dict[str, str | int]:
    ranking = group.ranking
    cells: dict[str, str | int] = {
        "label": _name(group),
        "images": ranking.num,
        "abnormal": f"{ranking.num_abnormal:,} ({_percent(ranking.anomaly_ratio)})",
    }
    if ranking.reason is not None:
        return cells | {"AUROC, AUPR, F1": ranking.reason}
    return cells | {
        "AUROC": _beside(ranking.auroc, CHANCE_AUROC),
        "95%": _short(ranking.auroc_interval),
        "AUPR": _beside(ranking.aupr, ranking.anomaly_ratio),
        "best F1": _beside(ranking.best_f1, ranking.flag_everything_f1),
    }


def _flagged_cells(group: Group) -> dict[str, str | int]:
    if group.flagged is None:
        return {}
    ranking, flagged = group.ranking, group.flagged
    return {
        f"at p < {ALPHA}": _name(group),
        "F1": _beside(flagged.f1, ranking.flag_everything_f1),
        "precision": _beside(flagged.precision, ranking.anomaly_ratio),
        "recall": _beside(flagged.recall, ALPHA),
        "false positives": _beside(flagged.false_positive_rate, ALPHA),
    }


def _name(group: Group) -> str:
    return "(all)" if group.label is None else group.label


def _pixel_line(pixels: PixelResult) -> str:
    if pixels.reason is not None:
        return f"pixels: {pixels.reason}"
    return (
        f"pixels of {pixels.num_images:,} images, {pixels.num_regions:,} defects on "
        f"{_percent(pixels.pixel_ratio)} of the area: AUROC {_beside(pixels.auroc, CHANCE_AUROC)}, "
        f"AUPRO {_beside(pixels.aupro, CHANCE_AUPRO)}"
    )


def _cost_line(cheapest: CheapestThreshold, prices: str | None) -> str:
    elsewhere = (
        "too few images to estimate the cost on others"
        if cheapest.cost_elsewhere is None
        else f"{cheapest.cost_elsewhere:.3g} on held-out images"
    )
    return (
        f"at cost {prices}: score >= {cheapest.threshold:.6g} costs {cheapest.cost:.3g} per image "
        f"on these, {elsewhere}; flagging nothing costs {cheapest.flag_nothing:.3g}, everything "
        f"{cheapest.flag_everything:.3g}"
    )


def _short(interval: Interval | None) -> str:
    if interval is None:
        return "–"
    return "–".join(f"{end:.2f}".removeprefix("0") for end in (interval.low, interval.high))


def _beside(value: float | None, baseline: float | None) -> str:
    text = "–" if value is None else f"{value:.3f}"
    return text if baseline is None else f"{text} ({baseline:.2f})"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"
