"""Compares the models of a table with each other, with chance and with mean image brightness.

Two models are compared on the images that both scored. Their AUROCs are correlated, because the
same images are easy or hard for both, so the difference is known more precisely than either one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ganad.evaluation.delong import CHANCE_AUROC, Difference, Placements, difference
from ganad.evaluation.labelled import Arrays

AUTOMATIC = 2000
"""Up to this many labelled images are fetched to measure their brightness by default."""


@dataclass(frozen=True)
class Standing:
    """One model compared with the best one of its table and with the best trivial detector."""

    model: str
    behind: Difference | None
    """The best model's AUROC minus this one's; None for the best model itself, or if their common
    images do not include both classes."""
    over_trivial: Difference | None = None
    """This model's AUROC minus that of the best trivial detector; None if brightness was not
    measured."""
    trivial: str = ""
    """Name of that trivial detector, such as bright."""


def standings(
    arrays: Mapping[str, Arrays],
    aurocs: Mapping[str, float],
    trivial: Mapping[str, Mapping[str, float]],
) -> list[Standing]:
    """Standings of the models, best first.

    arrays: by model. aurocs: by model, for those that have one. trivial: name of a trivial detector
    -> image_id -> score.
    """
    order = sorted(aurocs, key=lambda model: -aurocs[model])
    result = []
    for model in order:
        own = arrays[model]
        behind = None if model == order[0] else _difference(arrays[order[0]], own)
        beside = {name: _trivial_arrays(own, scores) for name, scores in trivial.items()}
        differences = {
            name: value
            for name, (kept, other) in beside.items()
            if (value := _difference(kept, other)) is not None
        }
        name = min(differences, key=lambda name: differences[name].value, default="")
        result.append(Standing(model, behind, differences.get(name), name))
    return result


def findings(models: Sequence[Standing], groups: Mapping[str, Placements]) -> list[str]:
    """Conclusions of the comparisons, one sentence each. groups: the placements of each model."""
    sentences = []
    for standing in models:
        interval, auroc = groups[standing.model].interval(), groups[standing.model].auroc
        if interval.low <= CHANCE_AUROC:
            how = "worse than" if interval.high < CHANCE_AUROC else "no better than"
            sentences.append(
                f"{standing.model} is {how} chance: its AUROC is {auroc:.3f} "
                f"({interval.low:.3f} to {interval.high:.3f}), and 0.5 needs no detector"
            )
        if standing.over_trivial is not None and standing.over_trivial.interval.low <= 0:
            sentences.append(
                f"{standing.model} is no better than the brightness of the images: the trivial "
                f"detector '{standing.trivial}' has AUROC "
                f"{auroc - standing.over_trivial.value:.3f} on the same images"
            )
        if standing.behind is not None and not standing.behind.is_clear:
            sentences.append(
                f"{standing.model} and {models[0].model} do not differ significantly on these "
                f"images: the difference of their AUROCs is {standing.behind.value:.3f} "
                f"({standing.behind.interval.low:.3f} to {standing.behind.interval.high:.3f})"
            )
    return sentences


def _trivial_arrays(own: Arrays, scores: Mapping[str, float]) -> tuple[Arrays, Arrays]:
    """The images with both scores: the model's arrays and the trivial detector's arrays."""
    kept = np.array([image_id in scores for image_id in own.image_ids.tolist()], bool)
    ids = own.image_ids[kept]
    values = np.array([scores[image_id] for image_id in ids.tolist()], np.float64)
    chosen = own.only(kept)
    return chosen, Arrays(ids, values, None, chosen.abnormal, chosen.labels)


def _difference(one: Arrays, other: Arrays) -> Difference | None:
    """Difference on the common images; None unless they include both classes."""
    _, first, second = np.intersect1d(
        one.image_ids, other.image_ids, assume_unique=True, return_indices=True
    )
    abnormal = one.abnormal[first]
    if abnormal.all() or not abnormal.any():
        return None
    return difference(
        Placements.of(one.scores[first], abnormal), Placements.of(other.scores[second], abnormal)
    )
