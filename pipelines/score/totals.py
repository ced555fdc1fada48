"""What the workers of a scoring job report, summed up, and the moments that the job passed."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from ganad.scores.notes import kinds_of

LISTED, JOINED = "first images listed", "Ray joined"
FIRST_WORKER, WORKERS_READY = "first worker started", "workers ready"
FIRST_RESULT, LAST_RESULT = "first result", "last result"
LEFT, COUNTED = "Ray left", "table counted"


class Totals:
    """Sums over units since the command began, and the moments that it passed."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._began_at = time.time()
        self._moments: dict[str, float] = {}
        """Name -> seconds since the command began."""
        self._sums: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self.num_scored = self.num_retried = 0
        """Images scored for the first time, and those that had an error."""

    def reached(self, moment: str) -> None:
        """Note that the command has come to a moment; the last of several with one name counts."""
        self._moments[moment] = time.perf_counter() - self._began

    def add(self, result: Mapping[str, Any]) -> None:
        """Add a unit's result; see Scorer."""
        report = json.loads(result["report"])
        started, ready = (report.pop(key) - self._began_at for key in ("started", "ready"))
        moments = self._moments
        moments[FIRST_WORKER] = min(started, moments.get(FIRST_WORKER, started))
        moments[WORKERS_READY] = max(ready, moments.get(WORKERS_READY, ready))
        if FIRST_RESULT not in moments:
            self.reached(FIRST_RESULT)
        self.reached(LAST_RESULT)
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
        """Seconds, for a run's record; those of the stages are of work, summed over workers.
        moments: seconds from the beginning of the command."""
        stages = ("decode", "score", "write")
        return {
            "wall_s": round(time.perf_counter() - self._began, 3),
            "until_first_result_s": round(self._moments.get(FIRST_RESULT, 0.0), 3),
            "images_scored_now": self.num_scored,
            "images_retried": self.num_retried,
            **{f"{stage}_s": round(self._sums[f"{stage}_s"], 3) for stage in stages},
            "moments": {name: round(at, 3) for name, at in self._moments.items()},
        }
