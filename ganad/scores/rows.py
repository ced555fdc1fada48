"""Makes rows of a score table from rows of a manifest and their decoded images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ganad.images.decode import Decoded
from ganad.scores.table import SCHEMA

if TYPE_CHECKING:
    from ganad.model import Model

CARRIED = ("image_id", "uri", "member", "name", "label", "abnormal", "mask")


def score_rows(
    model: Model, rows: Sequence[Mapping[str, Any]], decoded: Sequence[Decoded]
) -> pa.Table:
    """Score the images; one row of the result per row given. A row without a score has an error."""
    scores = model.score_decoded(decoded, [row["image_id"] for row in rows])
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
