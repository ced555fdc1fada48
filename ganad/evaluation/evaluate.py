"""Quality of the models of a score table: over all labelled images, and for each kind of defect."""

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
"""The p-value below which an image counts as flagged."""


@dataclass(frozen=True)
class Group:
    """One model on all normal images and the abnormal ones of one label (None: of every label)."""

    model: str
    label: str | None
    ranking: Ranking
    flagged: Flagged | None
    """None where the model has no calibration and so no p-values."""


@dataclass
class Evaluation:
    """All figures of a table."""

    groups: list[Group] = field(default_factory=list)
    """By model, best first; of each model all labels together come first."""
    standings: list[Standing] = field(default_factory=list)
    """Of the models that have an AUROC, best first."""
    findings: list[str] = field(default_factory=list)
    """What the comparisons say, in sentences."""
    pixels: dict[str, PixelResult] = field(default_factory=dict)
    """By model, if asked for."""
    cheapest: dict[str, CheapestThreshold] = field(default_factory=dict)
    """By model, if prices were given."""
    notes: list[str] = field(default_factory=list)
    """What a reader must know, one sentence each."""


def evaluate(
    table: ScoreTable,
    labels: str | None = None,
    pixels: bool = False,
    *,
    brightness: bool | None = None,
    prices: Prices | None = None,
    provider: Provider = map_provider,
) -> Evaluation:
    """Measure every model of a table; labels as for Labelled.

    pixels: compute anomaly maps again and compare them with masks. brightness: compare the models
    with the mean brightness of the images, which fetches them; None: if they are few and local.
    prices: also choose the threshold of least cost. Raises TableError without labels, ModelError
    where pixels are asked for and a model is gone.
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
        model: found[0].ranking.auroc
        for model, found in groups.items()
        if found[0].ranking.auroc is not None
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
    """Models by AUROC over all labels, best first, then those without one."""

    def key(model: str) -> tuple[float, str]:
        auroc = groups[model][0].ranking.auroc
        return (np.inf if auroc is None else -auroc, model)

    return sorted(groups, key=key)


def groups_of(model: str, arrays: Arrays) -> list[Group]:
    """All images first; then, if there are several, each abnormal label against all normals."""
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
    """(None, all images); then, if there are several abnormal labels, each with the images that
    measure it: its own and all normal ones. abnormal: bool (n,), labels: str (n,)."""
    found = sorted(set(labels[abnormal].tolist()))
    chosen: list[tuple[str | None, np.ndarray]] = [(None, np.ones(len(abnormal), bool))]
    if len(found) > 1:
        chosen += [(label, ~abnormal | (labels == label)) for label in found]
    return chosen


def _trivial(labelled: Labelled, brightness: bool | None) -> dict[str, dict[str, float]]:
    """Scores of the trivial detectors: name -> image_id -> score; {} where they are not wanted."""
    if brightness is None:
        num = labelled.num_images
        brightness = num <= AUTOMATIC and not labelled.is_remote
        if not brightness:
            labelled.notes.append(
                f"the models were not compared with the brightness of the images: --brightness "
                f"fetches the {images(num)} for it"
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
