"""Units of work: runs of rows in a Parquet file, small enough for one task's memory.

A unit is one row of a Ray dataset from its listing to its result, so that no block boundary ever
divides it, and what it writes has a name that follows from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ganad.archive.parts import Part, read_rows
from ganad.images.decode import Preprocessing

UNIT_BYTES = 128 * 2**20
"""Decoded pixels of a unit at the most."""
UNIT_ROWS = 2048


@dataclass(frozen=True)
class Unit:
    """Rows start..start+num of the Parquet file at uri."""

    number: int
    uri: str
    start: int
    num: int

    def rows(self) -> list[dict[str, Any]]:
        return read_rows(self.uri, self.start, self.num)

    def item(self) -> dict[str, Any]:
        """As a row of a Ray dataset."""
        return asdict(self)

    @staticmethod
    def of(batch: dict[str, np.ndarray]) -> Unit:
        """From a batch of one row."""
        return Unit(
            int(batch["number"][0]),
            str(batch["uri"][0]),
            int(batch["start"][0]),
            int(batch["num"][0]),
        )


def rows_per_unit(preprocessings: Sequence[Preprocessing], num_rows: int, num_workers: int) -> int:
    """So many that a unit's pixels fit, and that small jobs still have work for every worker."""
    pixels = sum(one.channels * one.image_size**2 for one in preprocessings)
    fits = max(16, min(UNIT_ROWS, UNIT_BYTES // pixels))
    even = -(-num_rows // (4 * num_workers))
    return max(1, min(fits, max(64, even)))


def cut(parts: Sequence[Part], num: int, first: int = 0) -> list[Unit]:
    """Units of at most num rows, in the manifest's order, numbered from first; none spans two
    parts, so parts that come later give the units that all of them at once would."""
    units: list[Unit] = []
    for part in parts:
        for start in range(0, part.num_rows, num):
            units.append(Unit(first + len(units), part.uri, start, min(num, part.num_rows - start)))
    return units
