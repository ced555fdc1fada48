"""Whose regions a scoring job writes, and above which level of the heat maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ganad.errors import Mismatch, ModelError
from ganad.heat import Heat
from ganad.scores.files import list_models
from ganad.scores.records import read_runs
from ganad.scores.regions import models_with_regions
from pipelines.console.progress import say

if TYPE_CHECKING:
    from pipelines.score.work import ModelFolder

SHARE = 0.01
"""Of normal images that have a region, at most."""


def levels_of(
    models: Sequence[ModelFolder], table: str, typed: str, asked: bool
) -> dict[str, float]:
    """By id, the levels of the models whose regions are to be written: all of them if asked, and
    those that the table began with regions. A model's regions are there for all of its images or
    for none: raises Mismatch if they are asked of a model that began without. Raises ModelError
    for one that has no level.
    """
    there, begun = models_with_regions(table), {*list_models(table), *read_runs(table)}
    levels = {}
    for model in models:
        if model.id not in there and not asked:
            continue
        if model.id not in there and model.id in begun:
            raise Mismatch(
                f"--regions: {typed} holds scores of {model.id} without regions: "
                f"leave it out, or give a fresh --out"
            )
        if not asked:
            say(f"{model.id} goes on with regions, as it began")
        levels[model.id] = _level(model)
    return levels


def _level(model: ModelFolder) -> float:
    heat = Heat.read(model.path)
    if not heat:
        raise ModelError(
            f"--regions: {model.path} has no record of how high its heat maps go on normal images, "
            f"because its method makes none, or because it was trained without held-out images or "
            f"by an earlier version: leave it out, or train a method with heat maps, such as "
            f"padim, afresh"
        )
    return heat.level(SHARE)
