"""The colour scale of a model's heat maps, the same whichever images are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ganad.heat import Heat
from ganad.scores.refetch import MapImages, heat_of
from ganad.scores.sql import Session
from ganad.scores.table import ScoreTable

SHARE = 0.01
"""Of normal images whose heat goes beyond the middle of the scale."""
NUM_TYPICAL = 16
"""Images around the median score, which set the scale of a model that has no record of heat."""


@dataclass(frozen=True)
class Scale:
    """The map values drawn transparent (low) and brightest (high). All images of a model share one
    scale, so that they can be compared."""

    low: float
    high: float

    @classmethod
    def of(cls, heat: Heat) -> Scale | None:
        """From what most of a normal image is like; the level that one normal image in a hundred
        exceeds lies in the middle. None without maps."""
        if not len(heat):
            return None
        low, level = heat.middle, heat.level(SHARE)
        return cls(low, low + 2 * (level - low) if level > low else low + 1.0)


def scale_of(
    table: ScoreTable, model: str, map_images: MapImages, typical: Sequence[Mapping[str, Any]]
) -> Scale | None:
    """From the record of the model's held-out images. Models of earlier versions have none: then
    from NUM_TYPICAL typical images of the table, in the same way."""
    heat = heat_of(table, model)
    if heat is None:
        ids = [row["image_id"] for row in typical]
        heat = Heat.of(map_images(typical) if typical else [], ids)
    return Scale.of(heat)


def typical_rows(
    session: Session, model: str, columns: str, num: int, view: str = "scores"
) -> list[dict[str, Any]]:
    """num images around the median score: what the archive usually looks like."""
    rows = session.query(
        f"SELECT {columns} FROM {view} WHERE model = $1 AND score IS NOT NULL ORDER BY "
        f"abs(score - (SELECT approx_quantile(score, 0.5) FROM scores WHERE model = $1)), "
        f"image_id LIMIT {num}",
        model,
    )
    return list(rows.to_pylist(maps_as_pydicts="strict"))
