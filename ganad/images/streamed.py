"""Images that are fetched and decoded whenever they are asked for: of more data than any disk can
hold decoded."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from ganad.errors import ArchiveError
from ganad.images.decode import Decoded, Preprocessing
from ganad.images.load import load_images

TRIED = 100
"""Images that are tried in the place of one that has become unreadable."""


class Streamed:
    """The images of a job's rows, of which nothing is kept.

    The rows have been looked through before, and unreadable ones are not asked for. One that has
    become unreadable since then is replaced by the next row of its part that is readable, round
    the end if need be: a function of the row alone, so that workers which share each batch stay in
    step, and no held-out image trains. on_bad is told of each such row, once.
    """

    def __init__(
        self,
        rows: pa.Table,
        preprocessing: Preprocessing,
        *,
        num_threads: int = 1,
        patience_s: float = 0,
        on_bad: Callable[[str], object] | None = None,
    ) -> None:
        """rows: with uri, offset, size, column and part. num_threads: that decode."""
        self.rows = rows.select(["uri", "offset", "size", "column"])
        self.parts = np.asarray(rows["part"].to_pylist())
        self.preprocessing = preprocessing
        self.num_threads, self.patience_s = num_threads, patience_s
        self.on_bad = on_bad
        self._told: set[int] = set()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def image_bytes(self) -> int:
        """Bytes of one image."""
        return self.preprocessing.image_bytes

    def take(self, positions: np.ndarray) -> np.ndarray:
        """Images at these positions, in this order: uint8 (k, c, h, w).

        Raises ArchiveError if nothing can be read any more, or if storage has not answered for as
        long as patience_s.
        """
        # Windows of one image come in the same batch: it is decoded once.
        distinct, places = np.unique(np.asarray(positions, np.int64), return_inverse=True)
        kind = self.preprocessing
        pixels = np.empty((len(distinct), kind.channels, *[kind.image_size] * 2), np.uint8)
        for i, one in enumerate(self._decode(distinct)):
            pixels[i] = self._in_place_of(int(distinct[i]), one) if one.image is None else one.image
        return pixels[places]

    def crops(self, positions: np.ndarray, corners: np.ndarray, side: int) -> np.ndarray:
        """A square of each image, its top and left in corners: uint8 (k, c, side, side)."""
        images = self.take(positions)
        result = np.empty((*images.shape[:2], side, side), np.uint8)
        for k, (top, left) in enumerate(corners):
            result[k] = images[k, :, top : top + side, left : left + side]
        return result

    def _decode(self, positions: np.ndarray) -> list[Decoded]:
        rows = self.rows.take(pa.array(positions)).to_pylist()
        each = -(-len(rows) // self.num_threads)
        pieces = [rows[start : start + each] for start in range(0, len(rows), max(1, each))]

        def load(piece: list[dict[str, object]]) -> list[Decoded]:
            found = load_images(piece, [self.preprocessing], patience_s=self.patience_s)
            return [one for (one,) in found]

        with ThreadPoolExecutor(self.num_threads) as pool:
            return [one for some in pool.map(load, pieces) for one in some]

    def _in_place_of(self, position: int, bad: Decoded) -> np.ndarray:
        """The image of another row: uint8 (c, h, w)."""
        uri = self.rows["uri"][position].as_py()
        if position not in self._told and self.on_bad is not None:
            self.on_bad(f"{uri} can no longer be read, another image takes its place: {bad.error}")
        self._told.add(position)
        same = np.flatnonzero(self.parts == self.parts[position])
        first = int(np.searchsorted(same, position)) + 1
        following = np.concatenate([same[first:], same[: first - 1]])[:TRIED]
        for other in following:
            (one,) = self._decode(np.array([other]))
            if one.image is not None:
                return one.image
        raise ArchiveError(
            f"{uri}: {bad.error}, nor can any of {len(following)} images be read that might take "
            f"its place: bring them back, and run the same command again to go on"
        )
