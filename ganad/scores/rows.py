"""Makes rows of a score table from rows of a manifest and their decoded images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ganad.images.decode import Decoded
from ganad.scores import regions
from ganad.scores.table import SCHEMA

if TYPE_CHECKING:
    from ganad.model import ImageScores, Model

CARRIED = ("image_id", "uri", "member", "name", "label", "abnormal", "mask")


def score_rows(
    model: Model, rows: Sequence[Mapping[str, Any]], decoded: Sequence[Decoded]
) -> pa.Table:
    """Score the images; one row of the result per row given. A row without a score has an error."""
    scores = model.score_decoded(decoded, [row["image_id"] for row in rows])
    return _table(model, scores, rows, decoded)


def rows_and_regions(
    model: Model, rows: Sequence[Mapping[str, Any]], decoded: Sequence[Decoded], level: float
) -> tuple[pa.Table, pa.Table]:
    """As score_rows, with the regions of the images, whose heat maps are above the level."""
    scores = model.score_decoded(decoded, [row["image_id"] for row in rows], maps=True)
    found = []
    for row, image, score, heat in zip(rows, decoded, scores.score, scores.maps, strict=True):
        if heat is None or not np.isfinite(score):
            continue
        assert image.width is not None
        assert image.height is not None
        names = {"image_id": row["image_id"], "uri": row["uri"]}
        of_image = regions.find(heat, level, image.width, image.height)
        found += [{**names, **region} for region in of_image]
    table = pa.Table.from_pylist(found, schema=regions.SCHEMA)
    return _table(model, scores, rows, decoded), table


def _table(
    model: Model,
    scores: ImageScores,
    rows: Sequence[Mapping[str, Any]],
    decoded: Sequence[Decoded],
) -> pa.Table:
    now = datetime.now(UTC)
    finite = np.isfinite(scores.score)
    errors = [
        error or (None if good else "the score is not a finite number")
        for error, good in zip(scores.errors, finite, strict=True)
    ]
    columns: dict[str, list[Any]] = {key: [row[key] for row in rows] for key in CARRIED}
    columns["width"] = [
        None if error else image.width for image, error in zip(decoded, errors, strict=True)
    ]
    columns["height"] = [
        None if error else image.height for image, error in zip(decoded, errors, strict=True)
    ]
    columns["score"] = [
        float(s) if good else None for s, good in zip(scores.score, finite, strict=True)
    ]
    columns["p_value"] = [float(p) if np.isfinite(p) else None for p in scores.p_value]
    columns["terms"] = [
        [(name, float(term[i])) for name, term in scores.terms.items()] if good else None
        for i, good in enumerate(finite)
    ]
    columns["error"] = errors
    columns["scored_at"] = [now] * len(rows)
    columns["model"] = [model.id] * len(rows)
    return pa.table(
        {name: pa.array(columns[name], SCHEMA.field(name).type) for name in SCHEMA.names},
        schema=SCHEMA,
    )
