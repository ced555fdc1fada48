"""Units of work: runs of rows in a Parquet file, each the work of one task.

A unit is one row of a Ray dataset from its listing to its result, so that no block boundary ever
divides it, and what it writes has a name that follows from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ganad.archive.parts import Part, read_rows
from ganad.images.decode import Preprocessing

UNIT_BYTES = 128 * 2**20
"""Decoded pixels that a worker holds at once, at the most."""
UNIT_ROWS = 2048
"""Rows that it holds at once, at the most."""
UNITS_PER_SIZE = 4096
"""Units of a size grow to the double after so many: what a killed worker does again, or the last
one at work keeps the others waiting for, is a few thousandths of what was done before."""


@dataclass(frozen=True)
class UnitSize:
    """Rows of a unit by its place in the archive, so that a table of a billion images has not a
    million files. The archive's size is not known while it is listed; what comes before a unit is,
    and stays the same when images are added."""

    rows: int
    """Of the first units."""
    most: int | None = None
    """None: all units have the same size."""

    def at(self, before: int) -> int:
        """Rows of a unit that begins after so many rows."""
        doublings = max(1, before // (UNITS_PER_SIZE * self.rows)).bit_length() - 1
        return max(self.rows, min(self.most or self.rows, self.rows << doublings))


@dataclass(frozen=True)
class Unit:
    """Rows start..start+num of the Parquet file at uri."""

    number: int
    uri: str
    start: int
    num: int

    def rows(self) -> list[dict[str, Any]]:
        return read_rows(self.uri, self.start, self.num)

    def pieces(self, num: int) -> list[Unit]:
        """The unit in runs of so many rows at the most, all with its number."""
        end = self.start + self.num
        return [
            replace(self, start=at, num=min(num, end - at)) for at in range(self.start, end, num)
        ]

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
    even = -(-num_rows // (4 * num_workers))
    return max(1, min(rows_at_once(preprocessings), max(64, even)))


def rows_at_once(preprocessings: Sequence[Preprocessing]) -> int:
    """So many that a worker can hold their pixels; it takes a larger unit in pieces."""
    return min(UNIT_ROWS, rows_that_fit(preprocessings))


def rows_that_fit(preprocessings: Sequence[Preprocessing]) -> int:
    """Images whose pixels are UNIT_BYTES at the most, but 16 at least."""
    return max(16, UNIT_BYTES // sum(one.image_bytes for one in preprocessings))


def cut(parts: Sequence[Part], size: UnitSize, first: int = 0, before: int = 0) -> list[Unit]:
    """Units in the manifest's order, numbered from first; before: rows in the parts before these.
    None spans two parts, so parts that come later give the units that all at once would."""
    units: list[Unit] = []
    for part in parts:
        start = 0
        while start < part.num_rows:
            num = min(size.at(before + start), part.num_rows - start)
            units.append(Unit(first + len(units), part.uri, start, num))
            start += num
        before += part.num_rows
    return units
