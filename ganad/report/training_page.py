"""Writes the page of a training run, training.html in the model's folder.

The page is made from model.json, calibration.parquet, training/curves.json and the picture grids in
training/grids. Without curves.json, the losses per epoch in model.json are drawn.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from ganad import __version__
from ganad.calibration import Calibration
from ganad.errors import ArchiveError
from ganad.images.load import read_image
from ganad.report.charts import Curve, Histogram, score_range
from ganad.report.grid import rows_of
from ganad.report.pictures import data_uri
from ganad.report.rendering import render
from ganad.saved import read_info
from ganad.storage import files as storage

ALPHA = 0.05
RATE = "images_per_second"
LOG_FROM = 30
"""Curves whose values span more than this factor are drawn on a logarithmic scale."""


@dataclass(frozen=True)
class Strip:
    """A row of pictures."""

    name: str
    picture: str
    """A data URI."""


@dataclass(frozen=True)
class TrainingPage:
    """Everything on the page."""

    id: str
    detector: str
    facts: dict[str, str]
    """Name -> formatted number."""
    curves: list[tuple[str, Markup]]
    """(title, chart) of each loss, the validation score and the training speed."""
    strips: list[Strip]
    events: list[dict[str, Any]]
    histogram: Markup | None
    threshold: float | None
    num_calibration: int
    notes: list[str]
    config: str
    details: str
    versions: dict[str, str]
    source: str
    alpha: float = ALPHA
    made_at: str = ""
    version: str = __version__


def write_training_page(model: str) -> str:
    """Write training.html into the folder of a saved model; returns the file's URI."""
    folder = storage.absolute(model)
    uri = storage.join(folder, "training.html")
    storage.write_bytes(uri, render("training_page.html.j2", gather_training_page(folder)).encode())
    return uri


def gather_training_page(folder: str) -> TrainingPage:
    """Read everything that the page shows from a saved model's folder."""
    info = dict(read_info(folder))
    training = dict(info["training"])
    history = training.pop("history", [])
    events = [entry for entry in history if "event" in entry]
    calibration = _calibration(folder)
    threshold = None
    if calibration is not None and len(calibration) + 1 >= 1 / ALPHA:
        threshold = calibration.threshold(ALPHA)
    return TrainingPage(
        id=info["id"],
        detector=info["detector"],
        facts=_facts(training, events),
        curves=_curves(folder, history, events),
        strips=_strips(folder, info["config"]["image_size"]),
        events=events,
        histogram=_histogram(calibration, threshold),
        threshold=threshold,
        num_calibration=0 if calibration is None else len(calibration),
        notes=[] if calibration is None else calibration.notes(),
        config=json.dumps(info["config"], indent=2, ensure_ascii=False),
        details=json.dumps({**training, **info["facts"]}, indent=2, ensure_ascii=False),
        versions=dict(info["versions"]),
        source=str(training.get("source", "")),
        made_at=datetime.now(UTC).isoformat(sep=" ", timespec="minutes"),
    )


def _facts(training: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    names = {
        "num_train": "images trained on",
        "num_unreadable": "unreadable",
        "steps": "steps",
        "batch_size": "images per step",
        "num_workers": "workers",
        RATE: "images per second",
    }
    facts = {
        title: f"{training[name]:,}"
        for name, title in names.items()
        if training.get(name) is not None
    }
    if "steps" in training:
        facts["signs of collapse"] = str(sum("collapse" in event["event"] for event in events))
    return facts


def _calibration(folder: str) -> Calibration | None:
    uri = storage.join(folder, "calibration.parquet")
    if not storage.exists(uri):
        return None
    return Calibration.from_table(storage.read_table(uri))


def _histogram(calibration: Calibration | None, threshold: float | None) -> Markup | None:
    if calibration is None:
        return None
    scores = calibration.scores
    low, high, log = score_range(float(scores[0]), float(scores[-1]), float(np.median(scores)))
    num_bins = int(np.clip(2 * math.sqrt(len(scores)), 8, 40))
    spaced = np.geomspace if log else np.linspace
    edges = spaced(low, high, num_bins + 1)
    counts, _ = np.histogram(scores, edges)
    name = f"p < {ALPHA:g} →"
    return Histogram(edges, {"normal": counts}, log, True, threshold, name).svg()


def _curves(
    folder: str, history: Sequence[Mapping[str, Any]], events: Sequence[Mapping[str, Any]]
) -> list[tuple[str, Markup]]:
    uri = storage.join(folder, "training", "curves.json")
    epochs = [entry for entry in history if "epoch" in entry and "step" in entry]
    points = _points(uri) if storage.exists(uri) else epochs
    marks = [int(event["step"]) for event in events]
    names = dict.fromkeys(name for point in points for name in point)
    series = {
        name.replace("_", " "): _finite(points, name)
        for name in names
        if name not in ("step", "epoch", RATE, "validation_score")
    }
    series["score of held-out normal images"] = _finite(epochs, "validation_score")
    series[RATE.replace("_", " ")] = _finite(points, RATE)
    return [(name, _curve(values, marks)) for name, values in series.items() if len(values) > 1]


def _finite(points: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    """(step, value) of the points that have a number of this name."""
    found = ((point["step"], point.get(name)) for point in points)
    return [(step, value) for step, value in found if value is not None and math.isfinite(value)]


def _points(uri: str) -> list[dict[str, float]]:
    """What curves.json holds, with a loss that is not a number among it where training failed."""
    try:
        return TypeAdapter(list[dict[str, float]]).validate_python(storage.read_json(uri))
    except ValidationError as error:
        raise ArchiveError(
            f"{uri}: is damaged; delete it: the page then shows a point for each epoch"
        ) from error


def _curve(points: Sequence[tuple[int, float]], marks: Sequence[int]) -> Markup:
    values = [value for _, value in points]
    log = min(values) > 0 and max(values) > LOG_FROM * min(values)
    return Curve(points, log, marks).svg()


def _strips(folder: str, side: int) -> list[Strip]:
    """The originals, their reconstructions after each recorded epoch, and the last heat maps. For a
    detector without reconstructions, which sees maps, the heat maps after each recorded epoch."""
    grids = storage.join(folder, "training", "grids")
    names = sorted(name for name in storage.list_names(grids) if name.endswith(".png"))
    strips: list[Strip] = []
    last: list[Image.Image] = []
    for name in names:
        image = read_image(storage.join(grids, name))
        rows = [] if image.array is None else rows_of(Image.fromarray(image.array), side)
        if len(rows) < 2:
            continue  # damaged: show the other grids
        last = rows
        if not strips:
            strips.append(Strip("original", _picture(last[0])))
        strips.append(Strip(f"epoch {int(name[6:-4])}", _picture(last[1])))
    if len(last) > 2:
        strips.append(Strip("difference", _picture(last[2])))
    return strips


def _picture(image: Image.Image) -> str:
    return data_uri(image, "PNG", optimize=True)
