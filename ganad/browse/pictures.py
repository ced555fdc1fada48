"""Pictures of the grid, made when they are first asked for and kept within a bound of memory."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from queue import Empty, Queue
from typing import Any

import numpy as np
from cachetools import LRUCache
from PIL import Image

from ganad.errors import GanadError
from ganad.images.decode import Preprocessing
from ganad.report.pictures import fitted, heat_png
from ganad.report.scale import Scale, scale_of
from ganad.scores.refetch import MapImages, fetch, map_provider
from ganad.scores.table import ScoreTable

THUMBNAIL_SIDE = 320
"""Pixels of a thumbnail's longer side."""
FULL_SIDE = 4096
"""Pixels of a full image's longer side, at most."""
BATCH = 32
"""Images whose maps are computed in one pass of the network."""
BATCH_WAIT_S = 0.03
"""A page asks for its maps within milliseconds: wait so long for the others of a batch."""

Row = Mapping[str, Any]


class MissingError(Exception):
    """There is no such picture; the message says why, for a person."""


class Thumbnails:
    """JPEG files of the table's images, fetched from where they lie. max_bytes bounds the cache."""

    def __init__(self, table: ScoreTable, max_bytes: int) -> None:
        self.table = table
        self._cache: LRUCache[tuple[str, int], bytes] = LRUCache(max_bytes, getsizeof=len)
        self._lock = threading.Lock()

    def jpeg(self, row: Row, side: int) -> bytes:
        """The image of a row, its longer side at most `side` pixels.

        Raises MissingError if it is gone or cannot be decoded.
        """
        key = (row["image_id"], side)
        with self._lock:
            if key in self._cache:
                return self._cache[key]
        (decoded,) = fetch(self.table, [row], Preprocessing(image_size=_side(row, side)))
        if decoded.image is None or decoded.width is None or decoded.height is None:
            raise MissingError(decoded.error or "it cannot be decoded")
        # Pixels are not invented: no larger than the image itself.
        longer = min(decoded.image.shape[-1], max(decoded.width, decoded.height))
        size = fitted(decoded.width, decoded.height, longer)
        square = Image.fromarray(decoded.image.transpose(1, 2, 0))
        buffer = io.BytesIO()
        square.resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=88)
        data = buffer.getvalue()
        with self._lock:
            if len(data) <= self._cache.maxsize:
                self._cache[key] = data
        return data


def _side(row: Row, side: int) -> int:
    """The side to decode at, as far as the table knows the image's size."""
    return min(side, max(row["width"] or side, row["height"] or side))


class HeatMaps:
    """Heat maps of one model. Requests that come together go through the network together.

    provider loads the model, the first time a map is asked for.
    """

    def __init__(
        self,
        table: ScoreTable,
        model: str,
        typical: Sequence[Row],
        max_bytes: int,
        provider: Callable[[ScoreTable, str], MapImages] = map_provider,
    ) -> None:
        self.table, self.model, self.typical, self.provider = table, model, typical, provider
        self._cache: LRUCache[str, bytes] = LRUCache(max_bytes, getsizeof=len)
        self._lock = threading.Lock()
        self._queue: Queue[tuple[Row, Future[bytes]]] = Queue()
        self._scale: Scale | None = None
        threading.Thread(target=self._work, daemon=True, name=f"maps-{model}").start()

    def png(self, row: Row) -> bytes:
        """The heat over the image of a row, clear where nothing is unusual.

        Raises MissingError if the model makes no maps, is gone, or the image is.
        """
        with self._lock:
            if row["image_id"] in self._cache:
                return self._cache[row["image_id"]]
        future: Future[bytes] = Future()
        self._queue.put((row, future))
        data = future.result()
        with self._lock:
            self._cache[row["image_id"]] = data
        return data

    def _work(self) -> None:
        map_images: MapImages | None = None
        while True:
            batch = self._next_batch()
            try:
                if map_images is None:
                    map_images = self.provider(self.table, self.model)
                    self._scale = scale_of(self.table, self.model, map_images, self.typical)
                maps = map_images([row for row, _ in batch])
            except Exception as error:
                reason = str(error) if isinstance(error, GanadError) else type(error).__name__
                for _, future in batch:
                    future.set_exception(MissingError(reason))
                continue
            for (row, future), one in zip(batch, maps, strict=True):
                self._answer(row, future, one)

    def _next_batch(self) -> list[tuple[Row, Future[bytes]]]:
        batch = [self._queue.get()]
        while len(batch) < BATCH:
            try:
                batch.append(self._queue.get(timeout=BATCH_WAIT_S))
            except Empty:
                break
        return batch

    def _answer(self, row: Row, future: Future[bytes], one: np.ndarray | None) -> None:
        if one is None or self._scale is None:
            lacks = "makes no heat maps" if one is None else "has no image to set a heat scale by"
            future.set_exception(MissingError(f"{self.model} {lacks}"))
            return
        future.set_result(heat_png(one, self._scale, row["width"], row["height"]))
