"""What it brings, and costs, that a large JPEG shrinks while it is decoded."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from ganad.archive.listing import list_images
from ganad.evaluation.metrics import ranking
from ganad.images.decode import MAX_PIXELS, Preprocessing, decode
from ganad.images.header import open_image
from ganad.model import load

BATCH = 64


def seconds(data: bytes, preprocessing: Preprocessing, repeats: int) -> tuple[float, float]:
    """For one JPEG: decoded as ganad does, and all of its pixels decoded first; the fastest of
    some repeats, which take turns."""
    spent: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for way, found in zip((decode, _whole), spent, strict=True):
            began = time.perf_counter()
            way(data, preprocessing)
            found.append(time.perf_counter() - began)
    return min(spent[0]), min(spent[1])


def _whole(data: bytes, preprocessing: Preprocessing) -> np.ndarray:
    size = (preprocessing.image_size,) * 2
    image = open_image(data, MAX_PIXELS)
    whole = image.convert("L" if preprocessing.channels == 1 else "RGB")
    return np.asarray(whole.resize(size, Image.Resampling.BILINEAR))


def auroc(model: str, source: str) -> tuple[float | None, float | None]:
    """Of the labelled JPEGs of source: decoded as ganad does, and all of their pixels first."""
    rows = [row for row in list_images([source]) if row["uri"].endswith(".jpg")]
    abnormal = np.array([row["abnormal"] for row in rows])
    contents = [Path(row["uri"]).read_bytes() for row in rows]
    loaded = load(model)

    def scores(files: Iterator[bytes]) -> np.ndarray:
        decoded = [decode(data, loaded.preprocessing) for data in files]
        return loaded.score_decoded(decoded, [row["image_id"] for row in rows]).score

    found = scores(iter(contents)), scores(_lossless(data) for data in contents)
    return ranking(found[0], abnormal).auroc, ranking(found[1], abnormal).auroc


def _lossless(jpeg: bytes) -> bytes:
    """The same pixels as a PNG, which is always decoded whole."""
    sink = io.BytesIO()
    open_image(jpeg, MAX_PIXELS).save(sink, "PNG", compress_level=0)
    return sink.getvalue()
