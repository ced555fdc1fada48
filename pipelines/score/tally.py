"""What the workers of a scoring job report, summed up."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from ganad.scores.notes import kinds_of


class Tally:
    """Sums over units. began: when the command did, by time.perf_counter."""

    def __init__(self, began: float) -> None:
        self.began = began
        self.totals: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        """By the text of the error."""
        self._first_s: float | None = None

    @property
    def rows(self) -> int:
        """Images scored."""
        return int(self.totals["rows"])

    def add(self, report: dict[str, Any]) -> None:
        """Take a unit's report; see Scorer."""
        self._first_s = self._first_s or time.perf_counter() - self.began
        self.failures.update(report.pop("failures"))
        self.totals.update(report)

    def remark(self) -> str:
        """What a person who watches should know beside the rate."""
        said = []
        if self.failures:
            kind, num = Counter(kinds_of(self.failures)).most_common(1)[0]
            of_which = f", most of them {kind}" if num < self.failures.total() else f": {kind}"
            said.append(f"{self.failures.total():,} failed{of_which}")
        if self.totals["retries"]:
            said.append(f"{int(self.totals['retries']):,} requests repeated")
        return ", ".join(said)

    def timings(self) -> dict[str, Any]:
        """Seconds, for run.json; those of the stages are of work, in all workers together."""
        return {
            "wall_s": round(time.perf_counter() - self.began, 3),
            "until_first_result_s": round(self._first_s or 0.0, 3),
            "images_scored_now": self.rows,
            **{
                f"{stage}_s": round(self.totals[f"{stage}_s"], 3)
                for stage in ("decode", "score", "write")
            },
        }
