"""What the workers of a scoring job report, summed up, and shown while it runs."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from ganad.scores.notes import kinds_of


class Totals:
    """Sums over units, from the moment on that the command began."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._sums: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._first_s: float | None = None
        self.num_scored = self.num_retried = 0
        """Images scored for the first time, and those that had an error."""

    def add(self, result: Mapping[str, Any]) -> None:
        """Add a unit's result; see Scorer."""
        report = json.loads(result["report"])
        if self._first_s is None:
            self._first_s = time.perf_counter() - self._began
        self._failures.update(report.pop("failures"))
        self._sums.update(report)

    def remark(self) -> str:
        """What a person who watches should know beside the rate."""
        return ", ".join(self._remarks())

    def _remarks(self) -> Iterator[str]:
        if self._failures:
            kind, num = Counter(kinds_of(self._failures)).most_common(1)[0]
            which = f", most of them {kind}" if num < self._failures.total() else f": {kind}"
            yield f"{self._failures.total():,} failed{which}"
        if self._sums["retries"]:
            yield f"{int(self._sums['retries']):,} requests repeated"

    def timings(self) -> dict[str, Any]:
        """Seconds, for a run's record; those of the stages are of work, summed over workers."""
        stages = ("decode", "score", "write")
        return {
            "wall_s": round(time.perf_counter() - self._began, 3),
            "until_first_result_s": round(self._first_s or 0.0, 3),
            "images_scored_now": self.num_scored,
            "images_retried": self.num_retried,
            **{f"{stage}_s": round(self._sums[f"{stage}_s"], 3) for stage in stages},
        }
