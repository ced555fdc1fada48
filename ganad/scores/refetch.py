"""Fetches the images of a score table again, to show them or to compute anomaly maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ganad.archive.manifest import open_manifest
from ganad.archive.parquets import read_cells
from ganad.calibration import Calibration
from ganad.errors import ArchiveError, GanadError, ModelError, NoMapsError
from ganad.heat import Heat
from ganad.images.decode import Decoded, Preprocessing, failed
from ganad.images.load import load_images
from ganad.saved import read_info
from ganad.scores.table import ScoreTable
from ganad.storage import files as storage
from ganad.storage.reasons import translated

_FETCHERS = 8
_PLACE_UNKNOWN = "its place in the file is not known: the manifest is gone"
Row = Mapping[str, Any]
MapImages = Callable[[Sequence[Row]], list[np.ndarray | None]]
"""Rows of a score table -> anomaly maps, each (h, w), larger = more anomalous, or None."""
Provider = Callable[[ScoreTable, str], MapImages]
"""A table and the id of one of its models -> the function that computes maps with that model."""


def model_path(table: ScoreTable, model_id: str) -> str:
    """The path from which the run loaded this model. Raises ModelError if the table has no record
    of it."""
    if model_id in table.runs:
        return table.runs[model_id].path
    raise ModelError(
        f"{table.typed} does not say where {model_id} is (its run has not finished): "
        f"run the same ganad score again"
    )


def calibration_of(table: ScoreTable, model_id: str) -> Calibration | None:
    """The calibration in the model's folder; None if it has none, or if the folder is gone or holds
    another model now. Reads two small files, not the weights."""
    try:
        path = model_path(table, model_id)
        if storage.read_json(storage.join(path, "model.json")).get("id") != model_id:
            return None
        uri = storage.join(path, "calibration.parquet")
        return Calibration.from_table(storage.read_table(uri))
    except (GanadError, ValueError, OSError):
        return None


def heat_of(table: ScoreTable, model_id: str) -> Heat | None:
    """The record of heat in the model's folder; None if it has none, or if the folder is gone or
    holds another model now."""
    try:
        path = model_path(table, model_id)
        return Heat.read(path) if read_info(path)["id"] == model_id else None
    except GanadError:
        return None


def num_calibration_of(table: ScoreTable, model_id: str) -> int | None:
    """Number of calibration images of a model; None if it has none or its folder is gone."""
    calibration = calibration_of(table, model_id)
    return None if calibration is None else len(calibration)


def map_provider(table: ScoreTable, model_id: str) -> MapImages:
    """Load the model that scored the table and return the function that computes its maps.

    Raises NoMapsError if its detector makes no maps, ModelError if the model is gone or has been
    replaced.
    """
    import torch

    from ganad.model import load

    path = model_path(table, model_id)
    model = load(path, "cuda" if torch.cuda.is_available() else "cpu")
    if model.id != model_id:
        raise ModelError(
            f"{path} holds {model.id} now, not {model_id} that scored {table.typed}: "
            f"score again with the new model"
        )

    size, channels = model.preprocessing.image_size, model.preprocessing.channels
    blank = torch.zeros((1, channels, size, size), dtype=torch.uint8)
    if model.detector.score(blank, ["blank"], maps=True).maps is None:
        raise NoMapsError(f"{model_id} makes no heat maps: its method says nothing about places")

    def map_images(rows: Sequence[Row]) -> list[np.ndarray | None]:
        decoded = fetch(table, rows, model.preprocessing)
        return model.score_decoded(decoded, [row["image_id"] for row in rows], maps=True).maps

    return map_images


def fetch(table: ScoreTable, rows: Sequence[Row], preprocessing: Preprocessing) -> list[Decoded]:
    """Fetch and decode the images of these rows; unavailable images get an error, as in scoring."""
    places = _places(table, rows)
    known = [i for i, place in enumerate(places) if place is not None]
    images = load_images([places[i] for i in known], [preprocessing])  # type: ignore[misc]
    result = [failed(_PLACE_UNKNOWN)] * len(rows)
    for i, views in zip(known, images, strict=True):
        result[i] = views[0]
    return result


def fetch_bytes(table: ScoreTable, rows: Sequence[Row]) -> Iterator[bytes | ArchiveError]:
    """Yield the stored bytes of each row's image, or the error if they are unavailable. Images on
    S3 are fetched in parallel."""

    def fetched(place: Mapping[str, Any] | None) -> bytes | ArchiveError:
        try:
            if place is None:
                raise ArchiveError(_PLACE_UNKNOWN)
            return _bytes(place)
        except ArchiveError as error:
            return error

    places = _places(table, rows)
    if not any(storage.is_remote(row["uri"]) for row in rows):
        yield from map(fetched, places)
        return
    with ThreadPoolExecutor(_FETCHERS) as pool:
        yield from pool.map(fetched, places)


def _bytes(place: Mapping[str, Any]) -> bytes:
    uri, offset = place["uri"], place["offset"]
    if place.get("column") is None:
        if storage.size_of(uri) is None:  # a pipe or a device would never end
            raise ArchiveError(f"{uri} is not a file any more")
        return storage.read_bytes(uri, offset, place["size"] if offset is not None else None)
    try:
        with translated(uri):
            for _, data in read_cells(uri, place["column"], [offset]):
                if data is not None:
                    return data
    except (pa.ArrowException, OSError):
        raise ArchiveError(f"{uri} is damaged") from None
    raise ArchiveError(f"{uri} has no such row any more")


def _places(table: ScoreTable, rows: Sequence[Row]) -> list[dict[str, Any] | None]:
    """uri, offset, size and column of each row. A score table stores the uri only, so the others
    are looked up in the manifest for members of tars and Parquet files."""
    members = [row for row in rows if row["member"]]
    known = _members(table, members) if members else {}
    return [
        known.get(row["image_id"])
        if row["member"]
        else {"uri": row["uri"], "offset": None, "size": None}
        for row in rows
    ]


def _members(table: ScoreTable, rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    try:
        manifest = open_manifest(table.manifest_uri)
        # Rows of one tar are adjacent, so the condition on uri skips most row groups unread.
        wanted = pc.field("uri").isin(list({row["uri"] for row in rows})) & pc.field(
            "image_id"
        ).isin([row["image_id"] for row in rows])
        columns = ["image_id", "uri", "offset", "size", "column"]
        places = pa.concat_tables(
            storage.read_table(part.uri, columns, wanted) for part in manifest.parts
        )
    except (ArchiveError, OSError):
        return {}
    # A link that points out of its shard has no bytes in it.
    return {row["image_id"]: row for row in places.to_pylist() if row["offset"] is not None}
