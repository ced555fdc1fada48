"""Charts as inline SVG; colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

WIDTH, HEIGHT = 560, 270
LEFT, RIGHT, TOP, BOTTOM = 46, 20, 26, 40
_LOG_SCORES_FROM = 8
"""The score axis is logarithmic if the highest score exceeds the median by this factor."""


def score_range(low: float, high: float, median: float) -> tuple[float, float, bool]:
    """(low, high, True for a logarithmic axis) of an axis for scores low..high, which may be
    equal."""
    log = low > 0 and high > _LOG_SCORES_FROM * median
    return (low - 0.5, high + 0.5, log) if low == high else (low, high, log)


@dataclass(frozen=True)
class Axis:
    """Maps values low..high (low < high) to pixels start..end."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def place(self, value: float) -> float:
        """The pixel position of a value; values outside low..high are clipped."""
        value = min(max(value, self.low), self.high)
        if self.log:
            fraction = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            fraction = (value - self.low) / (self.high - self.low)
        return self.start + fraction * (self.end - self.start)

    def ticks(self, num: int = 5) -> list[float]:
        """Round values along the axis, about `num` of them."""
        if not self.log:
            return _round_steps(self.low, self.high, num)
        first, last = (
            math.ceil(math.log10(self.low) - 1e-9),
            math.floor(math.log10(self.high) + 1e-9),
        )
        if last - first < 1:
            return _round_steps(self.low, self.high, num)
        return [10.0**power for power in range(first, last + 1, -(-(last - first) // 6))]


def _round_steps(low: float, high: float, num: int) -> list[float]:
    rough = (high - low) / num
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [count * step for count in range(first, last + 1)]


@dataclass(frozen=True)
class Histogram:
    """Counts of scores in bins; groups are drawn over one another.

    edges: float (bins + 1,). counts: group -> int (bins,). shares: draw the fraction of each group,
    so that a few abnormal images stay visible beside many normal ones; otherwise draw counts on a
    logarithmic scale.
    """

    edges: np.ndarray
    counts: dict[str, np.ndarray]
    log_scores: bool
    shares: bool
    threshold: float | None = None
    threshold_name: str = ""

    def svg(self) -> Markup:
        """The chart."""
        x = _x_axis(float(self.edges[0]), float(self.edges[-1]), self.log_scores)
        heights = {
            name: counts / max(1, counts.sum()) if self.shares else counts.astype(float)
            for name, counts in self.counts.items()
        }
        top = max((float(values.max()) for values in heights.values()), default=1.0)
        if self.shares:
            y = _y_axis(0, top * 1.05 or 1.0)
        else:
            y = _y_axis(0.7, max(top * 1.3, 10), log=True)
        parts = [_frame(x, y, "score", "share of images" if self.shares else "images", self.shares)]
        for name, values in heights.items():
            parts.append(_path(self._steps(values, x, y), f"area {name}"))
        if self.threshold is not None and x.low <= self.threshold <= x.high:
            place = x.place(self.threshold)
            anchor, shift = ("end", -5) if place > WIDTH * 0.6 else ("start", 5)
            parts.append(
                f'<line class="threshold" x1="{place:.1f}" x2="{place:.1f}" '
                f'y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
                f'<text class="threshold-name" x="{place + shift:.1f}" y="{TOP + 11}" '
                f'text-anchor="{anchor}">{escape(self.threshold_name)}</text>'
            )
        return _svg(parts, "Histogram of scores")

    def _steps(self, values: np.ndarray, x: Axis, y: Axis) -> str:
        base = y.place(y.low)
        points = [f"M{x.place(float(self.edges[0])):.1f} {base:.1f}"]
        for left, right, value in zip(self.edges[:-1], self.edges[1:], values, strict=True):
            level = y.place(float(value)) if value > 0 else base
            points.append(f"L{x.place(float(left)):.1f} {level:.1f}")
            points.append(f"L{x.place(float(right)):.1f} {level:.1f}")
        return " ".join([*points, f"L{x.place(float(self.edges[-1])):.1f} {base:.1f} Z"])


@dataclass(frozen=True)
class Uniformity:
    """The fraction of images with p <= a as a function of a, both on logarithmic scales.

    groups: name -> (p-values in ascending order, fraction at or below each). band: (a, lower,
    upper), the 95 % interval of the fraction for normal images.
    """

    groups: dict[str, tuple[np.ndarray, np.ndarray]]
    lowest: float
    band: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def svg(self) -> Markup:
        """The chart."""
        x = _x_axis(self.lowest, 1.0, log=True)
        shares = [share[share > 0] for _, share in self.groups.values()]
        smallest = min([self.lowest, *(float(s.min()) for s in shares if len(s))])
        y = _y_axis(max(smallest, self.lowest / 10), 1.0, log=True)
        parts = [_frame(x, y, "p-value threshold a", "share with p ≤ a", True, True)]
        if self.band is not None:
            alpha, low, high = self.band
            upper = [_point(x, y, a, b) for a, b in zip(alpha, high, strict=True)]
            lower = [_point(x, y, a, b) for a, b in zip(alpha[::-1], low[::-1], strict=True)]
            parts.append(_path("M" + " L".join(upper + lower) + " Z", "band"))
        diagonal = max(x.low, y.low)
        ends = [_point(x, y, end, end) for end in (diagonal, 1.0)]
        parts.append(_path(f"M{ends[0]} L{ends[1]}", "promise"))
        for name, (alpha, share) in self.groups.items():
            parts.append(_path(_staircase(x, y, alpha, share), f"curve {name}"))
        return _svg(parts, "Share of images below each p-value")


@dataclass(frozen=True)
class Curve:
    """Values over training steps, at least two points; marks are steps to highlight."""

    points: Sequence[tuple[int, float]]
    log: bool
    marks: Sequence[int] = ()

    def svg(self) -> Markup:
        """The chart."""
        values = [value for _, value in self.points]
        low, high = min(values), max(values)
        if self.log:
            y = _y_axis(low / 1.1, high * 1.1, log=True)
        else:
            room = 0.05 * (high - low) or 0.5
            y = _y_axis(low - room, high + room)
        x = _x_axis(self.points[0][0], self.points[-1][0])
        parts = [_frame(x, y, "step", "", False)]
        for mark in self.marks:
            place = x.place(mark)
            parts.append(
                f'<line class="event" x1="{place:.1f}" x2="{place:.1f}" '
                f'y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
            )
        line = " L".join(_point(x, y, step, value) for step, value in self.points)
        parts.append(_path(f"M{line}", "curve all"))
        return _svg(parts, "Values over training steps")


def _staircase(x: Axis, y: Axis, alpha: np.ndarray, share: np.ndarray) -> str:
    points: list[str] = []
    before = y.low
    for a, s in zip(alpha, share, strict=True):
        points += [_point(x, y, a, before), _point(x, y, a, s)]
        before = s
    points.append(_point(x, y, 1.0, before))
    return "M" + " L".join(points)


def _point(x: Axis, y: Axis, a: float, b: float) -> str:
    return f"{x.place(float(a)):.1f} {y.place(float(b)):.1f}"


def _x_axis(low: float, high: float, log: bool = False) -> Axis:
    return Axis(low, high, LEFT, WIDTH - RIGHT, log)


def _y_axis(low: float, high: float, log: bool = False) -> Axis:
    return Axis(low, high, HEIGHT - BOTTOM, TOP, log)


def _frame(
    x: Axis, y: Axis, x_name: str, y_name: str, y_percent: bool, x_percent: bool = False
) -> str:
    parts = []
    bottom = HEIGHT - BOTTOM
    for value in y.ticks():
        place = y.place(value)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" '
            f'y1="{place:.1f}" y2="{place:.1f}"/>'
            f'<text class="tick" x="{LEFT - 7}" y="{place + 3.5:.1f}" text-anchor="end">'
            f"{_label(value, y_percent)}</text>"
        )
    for value in x.ticks(6):
        place = x.place(value)
        parts.append(
            f'<line class="grid" x1="{place:.1f}" x2="{place:.1f}" '
            f'y1="{bottom}" y2="{bottom + 4}"/>'
            f'<text class="tick" x="{place:.1f}" y="{bottom + 17}" text-anchor="middle">'
            f"{_label(value, x_percent)}</text>"
        )
    parts.append(
        f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>'
        f'<text class="name" x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{x_name}</text>'
        f'<text class="name" x="0" y="11">{y_name}</text>'
    )
    return "".join(parts)


def _label(value: float, percent: bool) -> str:
    if percent:
        return f"{value * 100:.4g}%"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _path(points: str, style: str) -> str:
    return f'<path class="{style}" d="{points}"/>'


def _svg(parts: Sequence[str], title: str) -> Markup:
    # Safe: the parts hold numbers, escaped text and text of this module.
    opening = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">'
    return Markup(f"{opening}{''.join(parts)}</svg>")
