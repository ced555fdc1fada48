"""Which units of a score table there are, and which of them are missing."""

from __future__ import annotations

from collections.abc import Sequence

from ganad.archive.parts import Part
from ganad.scores.table import ScoreTable
from ganad.storage import files as storage
from pipelines.passes.units import Unit, cut
from pipelines.score.scorer import is_part, unit_of


class Plan:
    """The units of the parts that are known so far, as the table's files were at the beginning.

    again: units in which an image has an error are missing too.
    """

    def __init__(self, table: str, ids: Sequence[str], again: bool) -> None:
        self._done = _done(table, ids)
        self._failed = _with_errors(table) & self._done if again and self._done else set()
        self._num_units = self._num_missing = self._num_again = 0
        self.num_images_before = 0
        """Images that were scored at the beginning and stay as they are."""

    def add(self, parts: Sequence[Part], rows_per_unit: int) -> list[Unit]:
        """Cut the parts that come behind those of before; returns which units are missing."""
        fresh = cut(parts, rows_per_unit, self._num_units)
        missing = [
            unit for unit in fresh if unit.number not in self._done or unit.number in self._failed
        ]
        self._num_units += len(fresh)
        self._num_missing += len(missing)
        self._num_again += sum(unit.number in self._failed for unit in missing)
        # Counted as they come: an archive of a billion images has thousands of rounds.
        self.num_images_before += sum(unit.num for unit in fresh)
        self.num_images_before -= sum(unit.num for unit in missing)
        return missing

    def facts(self) -> dict[str, int]:
        """Numbers of units, for run.json."""
        return {
            "parts_done_before": self._num_units - self._num_missing,
            "parts_scored_again": self._num_again,
        }


def _done(table: str, ids: Sequence[str]) -> set[int]:
    """Numbers of the units that have a file for every model."""
    each = (storage.list_names(storage.join(table, f"model={model_id}")) for model_id in ids)
    return set.intersection(*({unit_of(name) for name in names if is_part(name)} for names in each))


def _with_errors(table: str) -> set[int]:
    """Numbers of the units in which an image has an error."""
    return {unit_of(uri.rpartition("/")[2]) for uri in ScoreTable(table).files_with_errors()}
