"""Fetches the images that a report shows and makes thumbnails and heat maps of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ganad.errors import ArchiveError
from ganad.evaluation.pixels import misfit, read_mask
from ganad.images.decode import Decoded, Preprocessing
from ganad.report import pictures
from ganad.report.scale import NUM_TYPICAL as NUM_AROUND
from ganad.report.scale import Scale, scale_of, typical_rows
from ganad.scores.refetch import MapImages, fetch
from ganad.scores.sql import Session
from ganad.scores.table import ScoreTable

NUM_TYPICAL = 6
_COLUMNS = (
    "image_id, uri, member, name, width, height, score, p_value, terms, label, abnormal, mask"
)
_SCORED = f"SELECT {_COLUMNS} FROM scores WHERE model = $1 AND score IS NOT NULL"


@dataclass(frozen=True)
class Card:
    """One image on the page. Pictures are data URIs; if photo is None, `missing` gives the
    reason."""

    rank: int | None
    row: dict[str, Any]
    photo: str | None
    missing: str | None
    heat: str | None
    outline: str | None
    pixelated: bool
    """True for an image smaller than its display size, which is drawn without smoothing."""


@dataclass(frozen=True)
class Gallery:
    """The images with the highest scores, and some with median scores for comparison."""

    worst: list[Card]
    typical: list[Card]
    has_maps: bool
    has_outlines: bool


def gallery(
    table: ScoreTable, session: Session, model: str, num_worst: int, map_images: MapImages | None
) -> Gallery:
    """Choose and fetch the images to show."""
    worst = _worst(session, model, num_worst)
    around = typical_rows(session, model, _COLUMNS, NUM_AROUND)
    typical = around[:NUM_TYPICAL]
    shown = {row["image_id"] for row in worst}
    typical = [row for row in typical if row["image_id"] not in shown]
    rows = worst + typical
    side = pictures.thumbnail_side([(row["width"], row["height"]) for row in rows])
    images = fetch(table, rows, Preprocessing(image_size=side, channels=3))
    maps = _maps(rows, images, map_images)
    colours = None if map_images is None else scale_of(table, model, map_images, around)
    cards = [
        _card(rank if rank <= len(worst) else None, row, image, heat, colours)
        for rank, (row, image, heat) in enumerate(zip(rows, images, maps, strict=True), start=1)
    ]
    return Gallery(
        cards[: len(worst)],
        cards[len(worst) :],
        any(card.heat for card in cards),
        any(card.outline for card in cards),
    )


def _worst(session: Session, model: str, num: int) -> list[dict[str, Any]]:
    rows = session.query(f"{_SCORED} ORDER BY score DESC, image_id LIMIT {num}", model)
    return list(rows.to_pylist(maps_as_pydicts="strict"))


def _maps(
    rows: Sequence[dict[str, Any]], images: Sequence[Decoded], map_images: MapImages | None
) -> list[np.ndarray | None]:
    maps: list[np.ndarray | None] = [None] * len(rows)
    readable = [i for i, image in enumerate(images) if image.image is not None]
    if map_images is not None and readable:
        for i, heat in zip(readable, map_images([rows[i] for i in readable]), strict=True):
            maps[i] = heat
    return maps


def _card(
    rank: int | None,
    row: dict[str, Any],
    image: Decoded,
    anomaly_map: np.ndarray | None,
    scale: Scale | None,
) -> Card:
    if image.image is None or image.width is None or image.height is None:
        return Card(rank, row, None, image.error, None, None, False)
    heat = None
    if anomaly_map is not None and scale is not None:
        heat = pictures.heat_map(anomaly_map, scale, image.width, image.height)
    return Card(
        rank,
        row,
        pictures.thumbnail(image.image, image.width, image.height),
        None,
        heat,
        _outline(row),
        max(image.width, image.height) < 100,
    )


def _outline(row: dict[str, Any]) -> str | None:
    if row["mask"] is None:
        return None
    try:
        mask = read_mask(row["mask"])
        return None if misfit(mask, row) else pictures.outline(mask)
    except ArchiveError:
        return None  # show the image even if its mask is gone
