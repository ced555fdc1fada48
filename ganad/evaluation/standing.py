"""How the models of a table stand to each other, to chance and to the brightness of the images.

Figures of two models are compared on the images that both scored: the same images are easy or hard
for both, so their difference is known better than either figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ganad.evaluation.delong import CHANCE_AUROC, Difference, Placements, difference
from ganad.evaluation.labelled import Arrays

AUTOMATIC = 2000
"""Labelled images that are fetched to measure their brightness without being asked to."""


@dataclass(frozen=True)
class Standing:
    """One model beside the best one of its table and beside the best trivial detector."""

    model: str
    behind: Difference | None
    """The best model's AUROC minus this one's; None for the best itself, and where the two share
    no images of both classes."""
    over_trivial: Difference | None = None
    """This one's AUROC minus that of the best trivial detector, where brightness was measured."""
    trivial: str = ""
    """Its name, such as bright."""


def standings(
    arrays: Mapping[str, Arrays],
    aurocs: Mapping[str, float],
    trivial: Mapping[str, Mapping[str, float]],
) -> list[Standing]:
    """The models, best first.

    arrays: by model. aurocs: of the models that have one. trivial: scores of trivial detectors by
    name, each image_id -> score.
    """
    order = sorted(aurocs, key=lambda model: -aurocs[model])
    found = []
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
        found.append(Standing(model, behind, differences.get(name), name))
    return found


def findings(found: Sequence[Standing], groups: Mapping[str, Placements]) -> list[str]:
    """What the comparisons say, in sentences. groups: the placements of each model."""
    sentences = []
    for one in found:
        interval, auroc = groups[one.model].interval(), groups[one.model].auroc
        if interval.low <= CHANCE_AUROC:
            how = "worse than" if interval.high < CHANCE_AUROC else "no better than"
            sentences.append(
                f"{one.model} is {how} chance: its AUROC is {auroc:.3f} "
                f"({interval.low:.3f} to {interval.high:.3f}), and 0.5 needs no detector"
            )
        if one.over_trivial is not None and one.over_trivial.interval.low <= 0:
            sentences.append(
                f"{one.model} is no better than the brightness of the images: the trivial detector "
                f"'{one.trivial}' has AUROC {auroc - one.over_trivial.value:.3f} on the same images"
            )
        if one.behind is not None and not one.behind.is_clear:
            sentences.append(
                f"{one.model} and {found[0].model} cannot be told apart on these images: their "
                f"AUROC differs by {one.behind.value:.3f} ({one.behind.interval.low:.3f} to "
                f"{one.behind.interval.high:.3f})"
            )
    return sentences


def _trivial_arrays(own: Arrays, scores: Mapping[str, float]) -> tuple[Arrays, Arrays]:
    """The images that have both: as the model scored them, and as the trivial detector did."""
    kept = np.array([image_id in scores for image_id in own.image_ids.tolist()], bool)
    ids = own.image_ids[kept]
    values = np.array([scores[image_id] for image_id in ids.tolist()], np.float64)
    chosen = own.only(kept)
    return chosen, Arrays(ids, values, None, chosen.abnormal, chosen.labels)


def _difference(one: Arrays, other: Arrays) -> Difference | None:
    """On the images of both; None without both classes among them."""
    _, first, second = np.intersect1d(
        one.image_ids, other.image_ids, assume_unique=True, return_indices=True
    )
    abnormal = one.abnormal[first]
    if abnormal.all() or not abnormal.any():
        return None
    return difference(
        Placements.of(one.scores[first], abnormal), Placements.of(other.scores[second], abnormal)
    )
