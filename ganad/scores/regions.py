"""Regions: the connected places of an image whose heat map is above the model's level.

They stand beside the scores, in TABLE/_regions/model=MODEL, in a file for each file of scores and
of the same name. It is written before the file of scores: regions count if, and only if, that file
is there, so every image's regions are in the table once, whenever a job is killed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ganad.scores.checksums import CheckedFile, to_parquet
from ganad.scores.files import (
    REGIONS,
    SCHEMA_MARK,
    ScoreFile,
    list_files,
    list_models,
    model_folder,
)
from ganad.scores.partfiles import PartFile
from ganad.storage import files as storage

SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("x0", pa.int32()),
        ("y0", pa.int32()),
        ("x1", pa.int32()),
        ("y1", pa.int32()),
        ("area", pa.int64()),
        ("peak", pa.float64()),
        ("peak_x", pa.int32()),
        ("peak_y", pa.int32()),
    ]
)
"""Columns of a file; the model is in the folder's name. Boxes are in pixels of the whole upright
image, as wide and high as the table of scores says: x0 <= x < x1, y0 <= y < y1. area: pixels of the
region. peak: the map's highest value in it, at the pixel peak_x, peak_y."""
COLUMNS = (*SCHEMA.names, "model")
MOST = 100
"""Regions of an image that are kept, those with the highest peaks: the maps of some methods are as
grainy as the image."""
EIGHT = np.ones((3, 3), int)
"""Places that touch at a corner are connected."""


def find(heat: np.ndarray, level: float, width: int, height: int) -> list[dict[str, Any]]:
    """A heat map (h, w) of an upright image of width×height pixels -> its regions, the highest peak
    first: values of the columns but for image_id and uri. The map covers the whole image."""
    # Not above: a command that only reads a table does without it.
    from scipy import ndimage

    labels, num = ndimage.label(heat > level, structure=EIGHT)
    if num == 0:
        return []
    every = np.arange(1, num + 1)
    peaks = ndimage.maximum(heat, labels, every)
    kept = np.argsort(-peaks, kind="stable")[:MOST]
    boxes = ndimage.find_objects(labels)
    sizes = np.bincount(labels.ravel(), minlength=num + 1)[1:]
    places = ndimage.maximum_position(heat, labels, every)
    across, down = width / heat.shape[1], height / heat.shape[0]
    found = []
    for i in kept:
        rows, columns = boxes[i]
        row, column = places[i]
        found.append(
            {
                "x0": _floor(columns.start * across),
                "y0": _floor(rows.start * down),
                "x1": min(width, _ceil(columns.stop * across)),
                "y1": min(height, _ceil(rows.stop * down)),
                "area": max(1, round(sizes[i] * across * down)),
                "peak": float(peaks[i]),
                "peak_x": min(width - 1, _floor((column + 0.5) * across)),
                "peak_y": min(height - 1, _floor((row + 0.5) * down)),
            }
        )
    return found


def _floor(value: float) -> int:
    return int(np.floor(value + 1e-9))


def _ceil(value: float) -> int:
    return int(np.ceil(value - 1e-9))


def models_with_regions(table: str) -> set[str]:
    """Ids of the models whose regions the table holds, or will hold."""
    return set(list_models(storage.join(table, REGIONS)))


def begin(table: str, model: str) -> None:
    """Let the table hold regions of this model from now on."""
    uri = storage.join(table, REGIONS, model_folder(model), SCHEMA_MARK)
    if not storage.exists(uri):
        storage.write_bytes(uri, to_parquet(SCHEMA.empty_table()))


def write(file: ScoreFile, regions: pa.Table) -> None:
    """Write the regions of a file of scores, atomically and before it. Raises ArchiveError."""
    storage.write_bytes(file.regions.uri, to_parquet(regions))


def read(file: ScoreFile) -> pa.Table:
    """The regions of a file of scores. Raises Damaged, and ArchiveError."""
    place = file.regions
    return CheckedFile(place.uri, storage.size_of(place.uri) or 0).table(SCHEMA.names)


def merge(group: Sequence[ScoreFile], into: ScoreFile) -> None:
    """Write the regions of several files as those of the one that will replace them."""
    write(into, pa.concat_tables([read(file) for file in group]))


def replace_images(file: ScoreFile, image_ids: pa.Array, regions: pa.Table) -> None:
    """Give some images of a file the regions that they have in a table. Doing it twice is doing it
    once."""

    def those(table: pa.Table, inside: bool) -> pa.Table:
        chosen = pc.is_in(table["image_id"], value_set=image_ids)
        return table.filter(chosen if inside else pc.invert(chosen))

    write(file, pa.concat_tables([those(read(file), False), those(regions, True)]))


def part_files(table: str, files: Sequence[ScoreFile]) -> dict[str, PartFile]:
    """The files of regions of these files of scores, by path inside the table, as a session reads
    them, behind one that has only the columns. One that is missing has the size 0, so that reading
    it fails, and nothing else."""
    models = models_with_regions(table)
    with_regions = [file for file in files if file.model in models]
    if not with_regions:
        return {}
    mark = f"{REGIONS}/{model_folder(with_regions[0].model)}/{SCHEMA_MARK}"
    uri = storage.join(table, mark)
    found = {mark: PartFile(uri, storage.size_of(uri) or 0)}
    sizes = {one.path: one.size for one in list_files(storage.join(table, REGIONS))}
    for file in with_regions:
        size = sizes.get(file.path, 0)
        found[f"{REGIONS}/{file.path}"] = PartFile(file.regions.uri, size)
    return found


def remove_left_over(table: str, files: Sequence[ScoreFile]) -> None:
    """Remove the regions of files that are gone because these, the current ones, replace them."""
    if not models_with_regions(table):
        return
    current = {file.path for file in files}
    covered = {(file.model, unit) for file in files for unit in file.units}
    for one in list_files(storage.join(table, REGIONS)):
        # Those of a unit without scores wait for them.
        if one.path not in current and all((one.model, unit) in covered for unit in one.units):
            storage.remove(one.uri)
