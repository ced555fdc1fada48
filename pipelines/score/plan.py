"""Which units of a score table there are, and which of them each model has still to score."""

from __future__ import annotations

from collections.abc import Sequence

from ganad.archive.parts import Part
from ganad.scores.files import list_files, live
from pipelines.passes.units import Unit, UnitSize, cut

Missing = dict[tuple[str, ...], list[Unit]]
"""Models -> the units that these, and no others, have still to score."""


class Plan:
    """Cuts the parts of a manifest into units as they come, and compares them with the files that
    were in the table at the beginning."""

    def __init__(self, table: str, ids: Sequence[str], size: UnitSize) -> None:
        self._size = size
        self._scored: dict[str, set[int]] = {model: set() for model in ids}
        """By model, the numbers of its units."""
        self.files = [file for file in live(list_files(table)) if file.model in self._scored]
        """Those of the models, at the beginning."""
        for file in self.files:
            self._scored[file.model].update(file.units)
        self._num_units = self._num_rows = 0
        self.num_images_before = 0
        """Images that every model had scored at the beginning."""

    def add(self, parts: Sequence[Part]) -> Missing:
        """Cut parts that follow those of before."""
        missing: Missing = {}
        for unit in cut(parts, self._size, self._num_units, self._num_rows):
            self._num_units += 1
            self._num_rows += unit.num
            models = tuple(m for m, scored in self._scored.items() if unit.number not in scored)
            if models:
                missing.setdefault(models, []).append(unit)
            else:
                self.num_images_before += unit.num
        return missing
