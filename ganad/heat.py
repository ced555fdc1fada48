"""How high the heat maps of held-out normal images go: the level that other maps are compared with.

MODEL/heat.parquet has a row for each of about SAMPLE held-out images: image_id, and the median and
the peak (the largest value) of its map. No label is used, and no image that is scored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ganad.calibration import above
from ganad.errors import ModelError
from ganad.saved import REMEDY, read_info, read_part
from ganad.storage import files as storage

FILE = "heat.parquet"
SAMPLE = 256
"""Images whose maps are looked at, about so many: a level then moves little, and the pass is short
beside that of the scores."""


def sampled(ids: Sequence[str], num: int) -> list[int]:
    """Which of these images, of num held out, have their maps looked at: about SAMPLE of the num.

    It depends on an image's id alone, so workers that share the images choose as one would.
    """
    share = SAMPLE / max(num, 1)
    if share >= 1:
        return list(range(len(ids)))
    return [place for place, name in enumerate(ids) if _position(name) < share]


def _position(name: str) -> float:
    word = hashlib.blake2b(f"heat\0{name}".encode(), digest_size=8).digest()
    return int.from_bytes(word, "big") / 2**64


@dataclass(frozen=True, eq=False)
class Heat:
    """Of the maps of n held-out normal images: medians and peaks, float64 (n,)."""

    ids: tuple[str, ...] = ()
    medians: np.ndarray = field(default_factory=lambda: np.empty(0))
    peaks: np.ndarray = field(default_factory=lambda: np.empty(0))

    def __len__(self) -> int:
        return len(self.ids)

    @staticmethod
    def of(maps: Iterable[np.ndarray | None], ids: Sequence[str]) -> Heat:
        """From maps (h, w) each; images without one, or with values that are not finite, are left
        out."""
        found = [
            (name, float(np.median(one)), float(np.max(one)))
            for name, one in zip(ids, maps, strict=True)
            if one is not None and np.isfinite(one).all()
        ]
        names, medians, peaks = zip(*found, strict=True) if found else ((), (), ())
        return Heat(tuple(names), np.array(medians, float), np.array(peaks, float))

    @staticmethod
    def merge(parts: Iterable[Heat]) -> Heat:
        """All of them."""
        every = list(parts)
        return Heat(
            tuple(name for part in every for name in part.ids),
            np.concatenate([np.empty(0), *(part.medians for part in every)]),
            np.concatenate([np.empty(0), *(part.peaks for part in every)]),
        )

    @property
    def middle(self) -> float:
        """What most of a normal image is like: the median of the medians. n >= 1."""
        return float(np.median(self.medians))

    def level(self, share: float) -> float:
        """The value that the map of a normal image exceeds anywhere with at most this probability:
        the ceil((n + 1)(1 - share))-th smallest peak, as in ganad.calibration. n >= 1.

        With fewer than 1/share - 1 images it is the largest peak, which promises less.
        """
        return float(np.sort(self.peaks)[len(self) - max(1, above(len(self), share))])

    def files(self) -> dict[str, bytes]:
        """The file to save beside the model, by name; none without images."""
        if not self.ids:
            return {}
        columns = {"image_id": self.ids, "median": self.medians, "peak": self.peaks}
        table = pa.table({name: pa.array(of) for name, of in columns.items()})
        return {FILE: storage.parquet_bytes(table)}

    @staticmethod
    def read(folder: str) -> Heat | None:
        """That of a saved model; None if it has none: its method makes no maps, or an earlier
        version of ganad trained it. Raises ModelError for a damaged one."""
        info = read_info(folder)
        if FILE not in info["files"]:
            return None
        try:
            table = pq.read_table(pa.BufferReader(read_part(folder, info, FILE)))
            ids = tuple(table["image_id"].to_pylist())
            return Heat(ids, table["median"].to_numpy(), table["peak"].to_numpy())
        except (pa.ArrowException, KeyError) as error:
            raise ModelError(f"{folder} is damaged ({FILE}: {error}): {REMEDY}") from None
