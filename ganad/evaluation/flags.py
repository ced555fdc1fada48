"""Flags images without labels: by highest score, by a false discovery rate, or by a budget."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ganad.evaluation.promise import promise
from ganad.evaluation.thresholds import discoveries
from ganad.scores.refetch import num_calibration_of
from ganad.scores.sql import Session
from ganad.scores.table import ScoreTable
from ganad.storage.database import quoted

ORDER = "score DESC NULLS LAST, image_id"
_BELOW = {"COMPARE_LESSTHAN", "COMPARE_LESSTHANOREQUALTO"}
_ABOVE = {"COMPARE_GREATERTHAN", "COMPARE_GREATERTHANOREQUALTO"}


@dataclass(frozen=True)
class Flags:
    """condition: SQL over the columns of a table. sentences: one per model, on what it flags."""

    condition: str
    sentences: list[str]


def highest(
    models: Sequence[str],
    num: int,
    condition: str = "true",
    view: str = "scores",
    columns: str = "*",
) -> str:
    """SQL of the num highest scores of each model; condition and columns are SQL."""
    # One ORDER BY ... LIMIT per model lets DuckDB skip what cannot be among the first.
    return " UNION ALL ".join(
        f"(SELECT {columns} FROM {view} WHERE model = {quoted(model)} "
        f"AND score IS NOT NULL AND {condition} ORDER BY {ORDER} LIMIT {num})"
        for model in models
    )


def rows_where(condition: str, view: str = "scores", columns: str = "*") -> str:
    """SQL of the rows that a condition holds for, by model, the highest scores first."""
    return f"SELECT {columns} FROM {view} WHERE {condition} ORDER BY model, {ORDER}"


def by_false_discoveries(
    table: ScoreTable, session: Session, rate: float, view: str = "scores"
) -> Flags:
    """Apply the Benjamini-Hochberg procedure to each model of a view. Raises ConfigError for a rate
    that is not between 0 and 1."""
    conditions, sentences = [], []
    for model in models_of(session, view):
        rows = session.query(
            f"SELECT p_value, count(*) AS n FROM {view} "
            f"WHERE model = $1 AND p_value IS NOT NULL GROUP BY p_value ORDER BY p_value",
            model,
        )
        flagged = discoveries(rows["p_value"].to_pylist(), rows["n"].to_pylist(), rate)
        sentences.append(flagged.sentence(model, num_calibration_of(table, model)))
        if flagged.threshold is not None:
            conditions.append(
                f"(model = {quoted(model)} AND p_value <= {_number(flagged.threshold)})"
            )
    return Flags(" OR ".join(conditions) or "false", sentences)


def by_budget(session: Session, num: int, view: str = "scores") -> Flags:
    """Flag about num images per model by a score threshold. Images with equal scores are flagged
    together or not at all, whichever comes closer to num."""
    conditions, sentences = [], []
    for model in models_of(session, view):
        scored = f"{view} WHERE model = $1 AND score IS NOT NULL"
        at = session.query(
            f"SELECT score FROM {scored} ORDER BY score DESC LIMIT 1 OFFSET $2", model, num - 1
        )
        if len(at) == 0:
            at = session.query(f"SELECT min(score) AS score FROM {scored}", model)
        score = at["score"][0].as_py()
        if score is None:
            continue
        (counts,) = session.query(
            f"SELECT count(*) AS num, count(*) FILTER (score >= $2) AS at_least, "
            f"count(*) FILTER (score > $2) AS above, max(p_value) FILTER (score >= $2) AS p "
            f"FROM {scored}",
            model,
            score,
        ).to_pylist()
        together = counts["at_least"] - num <= num - counts["above"] or counts["above"] == 0
        sign, flagged = (">=", counts["at_least"]) if together else (">", counts["above"])
        conditions.append(f"(model = {quoted(model)} AND score {sign} {_number(score)})")
        p_value = "" if counts["p"] is None else f", p ≤ {counts['p']:.3g}"
        sentences.append(
            f"{model}: score {sign} {score:.6g} flags {flagged:,} of {counts['num']:,} images"
            f"{p_value}"
        )
    return Flags(" OR ".join(conditions) or "false", sentences)


def models_of(session: Session, view: str) -> list[str]:
    """Models with scores in a view, sorted."""
    rows = session.query(f"SELECT DISTINCT model FROM {view} WHERE score IS NOT NULL ORDER BY 1")
    return list(rows["model"].to_pylist())


def promises(table: ScoreTable, session: Session, sql: str) -> list[str]:
    """Explain the p-value thresholds in a query, given the number of calibration images: one
    sentence for each threshold and each model that has p-values."""
    sentences = []
    for alpha in sorted(set(p_thresholds(session, sql))):
        for model in table.models:
            num = num_calibration_of(table, model)
            if num is not None:
                sentences.append(promise(model, num, alpha))
                continue
            rows = session.query("SELECT min(p_value) AS p FROM scores WHERE model = $1", model)
            smallest = rows["p"][0].as_py()
            if smallest is not None and smallest >= alpha:
                sentences.append(
                    f"{model}: no image has p < {alpha:g}, the smallest p-value is {smallest:.2g}"
                )
    return sentences


def p_thresholds(session: Session, sql: str) -> Iterator[float]:
    """Yield the upper bounds that a query sets on p_value."""
    parsed = session.query("SELECT json_serialize_sql($1::VARCHAR) AS tree", sql)
    for node in _comparisons(json.loads(parsed["tree"][0].as_py())):
        column, number = node["left"], node["right"]
        wanted = _BELOW
        if column.get("class") == "CONSTANT":
            column, number, wanted = number, column, _ABOVE
        if (
            node["type"] in wanted
            and column.get("column_names", [""])[-1].lower() == "p_value"
            and number.get("class") == "CONSTANT"
        ):
            try:
                value = float(number["literal"]["text"])
            except (KeyError, TypeError, ValueError):
                continue
            if 0 < value < 1:
                yield value


def _comparisons(node: Any) -> Iterator[dict[str, Any]]:
    """Yield the comparisons in a parsed statement, at any depth."""
    children: Sequence[Any] = node if isinstance(node, list) else ()
    if isinstance(node, dict):
        if node.get("class") == "COMPARISON":
            yield node
        children = list(node.values())
    for child in children:
        yield from _comparisons(child)


def _number(value: float) -> str:
    """SQL for an exact float; a bare literal would become a decimal number."""
    return f"CAST('{value!r}' AS DOUBLE)"
