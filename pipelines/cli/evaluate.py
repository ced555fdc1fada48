"""Measure detection where labels are known. Run: ganad evaluate TABLE [--labels CSV] [--pixels]"""

from __future__ import annotations

import sys
from typing import Any, TextIO

from ganad.evaluation.delong import CHANCE_AUROC
from ganad.evaluation.evaluate import ALPHA, Evaluation, Group
from ganad.evaluation.evaluate import evaluate as evaluate_table
from ganad.evaluation.metrics import CHANCE_AUPRO, PixelResult
from ganad.scores.table import ScoreTable
from pipelines.console.output import check_format, write_csv, write_json, write_lines, write_table


def evaluate(
    table: str,
    labels: str | None = None,
    format: str = "table",
    pixels: bool = False,
    out: TextIO | None = None,
) -> None:
    """Write the figures of every model to out (standard output), each beside what a detector
    without any skill reaches.

    labels: a CSV that replaces the table's labels. pixels: also compare anomaly maps with masks,
    which fetches the images and runs the models again. Notes go with the table, or to standard
    error where out is for a program.
    """
    out = out or sys.stdout
    check_format(format)
    result = evaluate_table(ScoreTable(table), labels, pixels)
    if format == "table":
        _write_for_people(result, out)
        write_lines((f"note: {note}" for note in result.notes), out)
        return
    rows = [_row(group, result.pixels.get(group.model)) for group in result.groups]
    if format == "json":
        write_json(rows, out)
    else:
        write_csv(list(rows[0]), rows, out)
    write_lines((f"note: {note}" for note in result.notes), sys.stderr)


def _row(group: Group, pixels: PixelResult | None) -> dict[str, Any]:
    """All figures of a group by name; those of pixels stand with the whole, not with a label."""
    ranking, flagged = group.ranking, group.flagged
    row: dict[str, Any] = {
        "model": group.model,
        "label": group.label,
        "num": ranking.num,
        "num_abnormal": ranking.num_abnormal,
        "anomaly_ratio": ranking.anomaly_ratio,
        "auroc": ranking.auroc,
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
    whole = pixels if group.label is None else None
    if pixels is not None:
        row |= {
            "pixel_auroc": whole and whole.auroc,
            "pixel_auroc_chance": CHANCE_AUROC,
            "aupro": whole and whole.aupro,
            "aupro_chance": CHANCE_AUPRO,
            "pixel_reason": whole and whole.reason,
        }
    return row


def _write_for_people(result: Evaluation, out: TextIO) -> None:
    """For each model the ranking, then what p < 0.05 flags; baselines in brackets."""
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
    write_lines(
        [
            f"In brackets: what a detector without skill reaches. Best F1 is at an oracle's "
            f"threshold, and its baseline flags everything. p < {ALPHA} needs no labels: of normal "
            f"images like those of the calibration it flags at most {ALPHA:.0%}."
        ],
        out,
    )


def _ranking_cells(group: Group) -> dict[str, str | int]:
    ranking = group.ranking
    cells: dict[str, str | int] = {
        "abnormal label": _name(group),
        "images": ranking.num,
        "abnormal": f"{ranking.num_abnormal:,} ({_percent(ranking.anomaly_ratio)})",
    }
    if ranking.reason is not None:
        return cells | {"AUROC, AUPR, F1": ranking.reason}
    return cells | {
        "AUROC": _beside(ranking.auroc, CHANCE_AUROC),
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
        return f"pixels of {pixels.num_images:,} images: {pixels.reason}"
    return (
        f"pixels of {pixels.num_images:,} images, {pixels.num_regions:,} defects on "
        f"{_percent(pixels.pixel_ratio)} of the area: AUROC {_beside(pixels.auroc, CHANCE_AUROC)}, "
        f"AUPRO {_beside(pixels.aupro, CHANCE_AUPRO)}"
    )


def _beside(value: float | None, baseline: float | None) -> str:
    text = "–" if value is None else f"{value:.3f}"
    return text if baseline is None else f"{text} ({baseline:.2f})"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"
