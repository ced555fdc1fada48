"""The course of a training run in a bounded number of points, for its page."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

KEPT = 400
"""Points at the most; when there are more, every other one goes."""


class Curve:
    """Points by step, evenly spaced however long the run becomes."""

    def __init__(self, points: Iterable[dict[str, Any]] = ()) -> None:
        self.points = list(points)

    def add(self, step: int, values: dict[str, float]) -> None:
        """A point, unless the last one is nearer than those before it are to each other."""
        steps = [point["step"] for point in self.points]
        if len(steps) > 1 and step - steps[-1] < steps[1] - steps[0]:
            return
        self.points.append({"step": step, **values})
        if len(self.points) > KEPT:
            self.points = self.points[::2]
