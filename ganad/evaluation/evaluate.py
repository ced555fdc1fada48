"""Evaluates the models of a score table on all labelled images and on each kind of defect."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ganad.evaluation.delong import Placements
from ganad.evaluation.labelled import Arrays, Labelled, images
from ganad.evaluation.metrics import Flagged, PixelResult, Ranking, flagged, ranking
from ganad.evaluation.pixels import PIXEL_BATCH, pixel_figures
from ganad.evaluation.promise import promise
from ganad.evaluation.standing import AUTOMATIC, Standing, findings, standings
from ganad.evaluation.thresholds import CheapestThreshold, Prices, cheapest
from ganad.evaluation.trivial import brightness_of, trivial_scores
from ganad.scores.refetch import Provider, map_provider, num_calibration_of
from ganad.scores.table import ScoreTable

ALPHA = 0.05
"""An image counts as flagged if its p-value is below this."""


@dataclass(frozen=True)
class Group:
    """One model on all normal images and the abnormal ones of one label (None for every label)."""

    model: str
    label: str | None
    ranking: Ranking
    flagged: Flagged | None
    """None if the model was not calibrated and so has no p-values."""


@dataclass
class Evaluation:
    """All metrics of a table."""

    groups: list[Group] = field(default_factory=list)
    """Groups of each model, best model first; all labels together come before single ones."""
    standings: list[Standing] = field(default_factory=list)
    """Models that have an AUROC, best first."""
    findings: list[str] = field(default_factory=list)
    """Conclusions of the comparisons, one sentence each."""
    pixels: dict[str, PixelResult] = field(default_factory=dict)
    """Pixel metrics by model, if requested."""
    cheapest: dict[str, CheapestThreshold] = field(default_factory=dict)
    """Cheapest threshold by model, if prices were given."""
    notes: list[str] = field(default_factory=list)
    """Limitations of the figures, one sentence each."""


def evaluate(
    table: ScoreTable,
    labels: str | None = None,
    pixels: bool = False,
    *,
    brightness: bool | None = None,
    prices: Prices | None = None,
    provider: Provider = map_provider,
) -> Evaluation:
    """Evaluate every model of a table; labels: see Labelled.

    pixels: recompute anomaly maps and compare them with masks. brightness: compare the models with
    the mean brightness of the images, which must be fetched for it; None compares if the images are
    few and local. prices: also choose the threshold with the least cost. Raises TableError without
    labels, ModelError if pixels are requested and a model is gone.
    """
    labelled = Labelled(table, labels)
    try:
        return _evaluate(labelled, pixels, brightness, prices, provider)
    finally:
        labelled.session.close()


def _evaluate(
    labelled: Labelled,
    pixels: bool,
    brightness: bool | None,
    prices: Prices | None,
    provider: Provider,
) -> Evaluation:
    table = labelled.table
    arrays = {model: labelled.arrays(model) for model in table.models}
    groups = {model: groups_of(model, arrays[model]) for model in table.models}
    aurocs = {
        model: by_model[0].ranking.auroc
        for model, by_model in groups.items()
        if by_model[0].ranking.auroc is not None
    }
    result = Evaluation(notes=labelled.notes)
    trivial = _trivial(labelled, brightness) if aurocs else {}
    result.standings = standings(arrays, aurocs, trivial)
    placements = {
        model: Placements.of(arrays[model].scores, arrays[model].abnormal) for model in aurocs
    }
    result.findings = findings(result.standings, placements)
    for model in by_quality(groups):
        result.groups += groups[model]
        if groups[model][0].flagged is None:
            result.notes.append(f"{model} was not calibrated, so its scores have no p-values")
        elif (num := num_calibration_of(table, model)) is not None:
            result.notes.append(promise(model, num, ALPHA))
        if prices is not None and len(arrays[model].scores):
            result.cheapest[model] = cheapest(arrays[model].scores, arrays[model].abnormal, prices)
        if pixels:
            result.pixels[model] = pixel_figures(labelled, model, provider)
    return result


def by_quality(groups: dict[str, list[Group]]) -> list[str]:
    """Models sorted by AUROC over all labels, best first; models without one come last."""

    def key(model: str) -> tuple[float, str]:
        auroc = groups[model][0].ranking.auroc
        return (np.inf if auroc is None else -auroc, model)

    return sorted(groups, key=key)


def groups_of(model: str, arrays: Arrays) -> list[Group]:
    """Metrics of one model: all images; then, if there are several abnormal labels, each one
    against all normal images."""
    return [
        Group(
            model,
            label,
            ranking(arrays.scores[chosen], arrays.abnormal[chosen]),
            None
            if arrays.p_values is None
            else flagged(arrays.p_values[chosen], arrays.abnormal[chosen], ALPHA),
        )
        for label, chosen in by_label(arrays.abnormal, arrays.labels)
    ]


def by_label(abnormal: np.ndarray, labels: np.ndarray) -> list[tuple[str | None, np.ndarray]]:
    """Masks (label, bool (n,)) of the images that measure each label. The first is (None, all
    images); if there are several abnormal labels, each follows with its own images and all normal
    ones.

    abnormal: bool (n,), labels: str (n,).
    """
    names = sorted(set(labels[abnormal].tolist()))
    chosen: list[tuple[str | None, np.ndarray]] = [(None, np.ones(len(abnormal), bool))]
    if len(names) > 1:
        chosen += [(label, ~abnormal | (labels == label)) for label in names]
    return chosen


def _trivial(labelled: Labelled, brightness: bool | None) -> dict[str, dict[str, float]]:
    """Scores of the trivial detectors: name -> image_id -> score; {} if not requested."""
    if brightness is None:
        num = labelled.num_images
        brightness = num <= AUTOMATIC and not labelled.is_remote
        if not brightness:
            labelled.notes.append(
                f"the models were not compared with the brightness of the images: --brightness "
                f"does so, and fetches {images(num)}"
            )
    if not brightness:
        return {}
    levels = brightness_of(labelled.table, labelled.distinct_rows(PIXEL_BATCH))
    if not levels:
        labelled.notes.append(
            "the models were not compared with the brightness of the images, which are gone"
        )
        return {}
    values = np.array(list(levels.values()))
    return {
        name: dict(zip(levels, scores.tolist(), strict=True))
        for name, scores in trivial_scores(float(np.median(values)), values).items()
        if name != "constant"
    }
