"""Combines several models of a table into an ensemble at query time.

fisher   -2 sum(ln p) against chi-square with 2k degrees of freedom (Fisher 1932); valid for
         independent models. Models that score the same image are dependent, so p is too small
min      k times the smallest p (Bonferroni); valid under any dependence
mean     twice the mean p (Vovk and Wang 2020, Combining p-values via averaging); valid under any
         dependence

A small calibration set causes ties. Images with equal combined p are ordered by their mean rank
among the scores of each model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ganad.errors import ConfigError
from ganad.scores.sql import Session
from ganad.storage.database import identifier, quoted

WAYS = ("fisher", "min", "mean")
VIEW = "ensemble"
_CARRIED = ("uri", "member", "name", "width", "height", "label", "abnormal", "mask")
_MEMBER = (("score", "score"), ("p_value", "p"))


def add_ensemble(session: Session, models: Sequence[str], way: str) -> list[str]:
    """Create the view `ensemble` and return the columns to show.

    It has a row for each image that all models have scored, with the columns of `scores`, then
    score and p-value of each model. Its score is the fraction of images that are less anomalous, 0
    to 1. Raises ConfigError for an unknown way, or for fewer than two models.
    """
    if way not in WAYS:
        raise ConfigError(f"--ensemble {way} is not known: give {', '.join(WAYS)}")
    if len(models) < 2:
        raise ConfigError(
            f"--ensemble {way} needs at least two models, and the table has {len(models)}: score "
            f"it with another one, too"
        )
    num = len(models)
    members = ", ".join(
        f"any_value({column}) FILTER (model = {quoted(model)}) AS {identifier(f'{model} {name}')}"
        for model in models
        for column, name in _MEMBER
    )
    carried = ", ".join(f"any_value({name}) AS {name}" for name in _CARRIED)
    session.connection.execute(
        f"CREATE VIEW {VIEW} AS WITH "
        f"ranked AS (SELECT *, percent_rank() OVER (PARTITION BY model ORDER BY score) AS place "
        f"FROM scores WHERE score IS NOT NULL AND p_value IS NOT NULL), "
        f"joined AS (SELECT image_id, {carried}, {_combined(way, num)} AS p_value, "
        f"avg(place) AS place, {members} "
        f"FROM ranked GROUP BY image_id HAVING count(*) = {num}) "
        f"SELECT {quoted(f'{way} of {num} models')} AS model, "
        f"percent_rank() OVER (ORDER BY p_value DESC, place) AS score, "
        f"NULL::VARCHAR AS error, * EXCLUDE place FROM joined"
    )
    session.views.append(VIEW)
    return ["label", "p_value", "name", *(f"{m} {name}" for m in models for _, name in _MEMBER)]


def _combined(way: str, num: int) -> str:
    """SQL for the combination of num p-values."""
    if way == "min":
        return f"least(1.0, {num} * min(p_value))"
    if way == "mean":
        return "least(1.0, 2 * avg(p_value))"
    # The tail of chi-square with 2k degrees of freedom at 2s is exp(-s) sum over i < k of s^i / i!.
    tail = "-sum(ln(p_value))"
    terms = " + ".join(f"({tail}) ** {i} / {math.factorial(i)}" for i in range(num))
    return f"exp(sum(ln(p_value))) * ({terms})"
