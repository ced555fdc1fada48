"""Gathers the data of the score report from a score table; the template does the layout."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

from ganad import __version__
from ganad.errors import ConfigError, GanadError, TableError
from ganad.evaluation.evaluate import ALPHA, Group, groups_of
from ganad.evaluation.labelled import Labelled
from ganad.report.figures import Source, Threshold, histogram, thresholds, uniformity
from ganad.report.gallery import Gallery, gallery
from ganad.scores.refetch import Provider, calibration_of
from ganad.scores.sql import Session
from ganad.scores.table import ScoreTable

_FAILURES_SHOWN, _NAMES_SHOWN = 30, 5


@dataclass(frozen=True)
class ModelPage:
    """One model of the table."""

    id: str
    counts: dict[str, int]
    num_flagged: int | None
    """Number of images with p < 0.05; None if the model has no p-values."""
    num_calibration: int | None
    notes: list[str]
    histogram: Markup | None
    log_scores: bool
    uniformity: Markup | None
    thresholds: list[Threshold]
    groups: list[Group]
    gallery: Gallery
    config: str | None


@dataclass(frozen=True)
class ScorePage:
    """Everything on the page."""

    title: str
    uri: str
    labelled: bool
    notes: list[str]
    problems: list[str]
    models: list[ModelPage]
    failures: list[dict[str, Any]]
    num_other_failures: int
    run: dict[str, Any] = field(default_factory=dict)
    alpha: float = ALPHA
    made_at: str = ""
    version: str = __version__


def gather_score_page(
    table: ScoreTable, num_worst: int, model: str | None, provider: Provider | None
) -> ScorePage:
    """Read everything that the page shows. provider: source of anomaly maps; None omits them."""
    models = _chosen(table, model)
    labelled = _labelled(table)
    session = labelled.session if labelled is not None else table.session()
    counts = table.counts()
    failures = _failures(session)
    try:
        return ScorePage(
            title=table.uri.rstrip("/").rpartition("/")[2],
            uri=table.uri,
            labelled=labelled is not None,
            notes=[] if labelled is None else labelled.notes,
            problems=table.check_counts(counts),
            models=sorted(
                (
                    _model_page(table, session, labelled, id, counts[id], num_worst, provider)
                    for id in models
                ),
                key=_best_first,
            ),
            failures=failures[:_FAILURES_SHOWN],
            num_other_failures=sum(row["num"] for row in failures[_FAILURES_SHOWN:]),
            run=table.last_run.model_dump(mode="json") if table.last_run else {},
            made_at=datetime.now(UTC).isoformat(sep=" ", timespec="minutes"),
        )
    finally:
        session.close()


def _best_first(page: ModelPage) -> tuple[float, str]:
    """Sort key: AUROC, highest first, then models without one."""
    auroc = page.groups[0].ranking.auroc if page.groups else None
    return (1.0 if auroc is None else -auroc, page.id)


def _chosen(table: ScoreTable, model: str | None) -> list[str]:
    if model is None:
        return table.models
    chosen = [id for id in table.models if id.startswith(model)]
    if not chosen:
        raise ConfigError(
            f"{model} has not scored {table.typed}: choose among {', '.join(table.models)}"
        )
    return chosen


def _labelled(table: ScoreTable) -> Labelled | None:
    try:
        return Labelled(table)
    except TableError:
        return None  # the report needs no labels


def _model_page(
    table: ScoreTable,
    session: Session,
    labelled: Labelled | None,
    model: str,
    counts: dict[str, int],
    num_worst: int,
    provider: Provider | None,
) -> ModelPage:
    source = Source(session, "scores" if labelled is None else "labelled", model)
    calibration = calibration_of(table, model)
    notes = [] if calibration is None else calibration.notes()
    map_images = None
    if provider is not None:
        try:
            map_images = provider(table, model)
        except GanadError as error:
            notes.append(f"there are no heat maps: {error}")
    flags = thresholds(source)
    chart = histogram(source, next((flag for flag in flags if flag.alpha == ALPHA), None))
    curve = uniformity(source, None if calibration is None else len(calibration))
    flagged = session.query(
        f"SELECT count(p_value) AS n, count(*) FILTER (p_value < {ALPHA}) AS flagged FROM scores "
        f"WHERE model = $1",
        model,
    ).to_pylist()[0]
    return ModelPage(
        id=model,
        counts=counts,
        num_flagged=flagged["flagged"] if flagged["n"] else None,
        num_calibration=None if calibration is None else len(calibration),
        notes=notes,
        histogram=None if chart is None else chart.svg(),
        log_scores=chart is not None and chart.log_scores,
        uniformity=None if curve is None else curve.svg(),
        thresholds=flags,
        groups=[] if labelled is None else groups_of(model, labelled.arrays(model)),
        gallery=gallery(table, session, model, num_worst, map_images),
        config=_config(table, model),
    )


def _config(table: ScoreTable, model: str) -> str | None:
    run = table.runs.get(model)
    if run is None or not run.config:
        return None
    return json.dumps(run.config, indent=2, ensure_ascii=False)


def _failures(session: Session) -> list[dict[str, Any]]:
    """Error texts, most frequent first, with the number of images and some of their names."""
    rows = session.query(
        f"SELECT error, count(DISTINCT image_id) AS num, min(name, {_NAMES_SHOWN}) AS names "
        f"FROM (SELECT DISTINCT error, image_id, name FROM scores WHERE error IS NOT NULL) "
        f"GROUP BY error ORDER BY num DESC, error"
    )
    return list(rows.to_pylist())
