"""The device that is measured, with its clock and its memory, and a line of the result."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

BLOCKS = 5
"""Stretches of a measurement; their median counts."""
WARM_UP = 3
"""Calls on a GPU that come before: in them a CUDA graph is recorded, and replayed once."""


@dataclass(frozen=True)
class Rate:
    """Images per second: the median, the lowest and the highest of the stretches."""

    per_s: float
    lowest: float
    highest: float
    peak_mib: float | None = None
    """Most memory that tensors had on the GPU, with those that the process held before."""


@dataclass
class Line:
    """One way to do the work of a row."""

    row: str
    way: str
    rate: Rate | None = None
    why: str | None = None
    """Why there is no rate."""
    facts: dict[str, Any] = field(default_factory=dict)


def clock(
    work: Callable[[], object],
    num: int,
    seconds: float,
    wait: Callable[[], object] = lambda: None,
) -> Rate:
    """Call work, which does num images, again and again for about so many seconds; wait ends what
    a call has only begun."""

    def span(times: int) -> float:
        began = time.perf_counter()
        for _ in range(times):
            work()
        wait()
        return time.perf_counter() - began

    began = time.perf_counter()
    once = span(1)
    times = max(1, round(seconds / BLOCKS / once))
    rates = [num / once] if times == 1 else []  # a call that is as long as a stretch is one
    while not rates or (len(rates) < BLOCKS and time.perf_counter() - began < seconds):
        rates.append(times * num / span(times))
    return Rate(median(rates), min(rates), max(rates))


@dataclass
class Bench:
    """Measures on a device, "cuda" or "cpu", for so many seconds at a time. until: the moment of
    time.monotonic() from which on no more is begun."""

    device: str
    seconds: float
    until: float = math.inf

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"

    def wait(self) -> None:
        """For all that the GPU has still to do."""
        if self.on_gpu:
            torch.cuda.synchronize()

    def measure(self, work: Callable[[], object], num: int, warm_up: int | None = None) -> Rate:
        """The rate of work, which does num images. warm_up: calls before."""
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        for _ in range((WARM_UP if self.on_gpu else 1) if warm_up is None else warm_up):
            work()
        self.wait()
        rate = clock(work, num, self.seconds, self.wait)
        if not self.on_gpu:
            return rate
        peak = torch.cuda.max_memory_allocated() / 2**20
        return Rate(rate.per_s, rate.lowest, rate.highest, peak)

    def line(
        self,
        row: str,
        way: str,
        measure: Callable[[dict[str, Any]], Rate],
        *,
        spare_s: float = 0.0,
    ) -> Line:
        """The line of a way: its rate, or why there is none. measure may add facts to what it is
        given. spare_s: time that it may take."""
        line = Line(row, way)
        if time.monotonic() + spare_s > self.until:
            line.why = "left out: its time was used up by others"
            return line
        try:
            line.rate = measure(line.facts)
        except Exception as error:  # of any library below: the other lines are still wanted
            line.why = in_one_line(error)
        gc.collect()
        if self.on_gpu:
            torch.cuda.empty_cache()
        return line


def word(kind: torch.dtype) -> str:
    """Its name, such as bfloat16."""
    return str(kind).removeprefix("torch.")


def in_one_line(error: Exception) -> str:
    """Its kind and what it says, cut short."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words}"[:200].rstrip(": ")


def pictures(num: int, side: int, channels: int) -> np.ndarray:
    """Smooth pictures, uint8 (num, channels, side, side), the same ones each time."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (num, channels, 8, 8), np.uint8)
    return np.stack([[_enlarged(colour, side) for colour in picture] for picture in small])


def _enlarged(colour: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(colour).resize((side, side), Image.Resampling.BICUBIC))
