"""Reports progress: a bar on a terminal, a line from time to time in a log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from pipelines.console.terminal import Terminal, one_line, terminal

STOPPED = "stopped; run the same command again to continue"
LINE_EVERY_S = 10.0
QUIET_S = 60.0
"""After this long without progress, a log gets a line that the job still runs."""


def say(message: str) -> None:
    """Print one line for the user on standard error; standard output is for results."""
    console().print(one_line(message), soft_wrap=True)


def console() -> Terminal:
    """The console on standard error."""
    return terminal(sys.stderr)


def duration(seconds: float) -> str:
    """Format a duration in its two largest units."""
    whole = round(seconds)
    for name, size, below, of in (("d", 86_400, "h", 3_600), ("h", 3_600, "min", 60)):
        if whole >= size:
            return f"{whole // size:,} {name} {whole % size // of} {below}"
    if whole >= 60:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole} s" if seconds >= 10 else f"{seconds:.2g} s"


class Meter:
    """Counts work done.

    with Meter("scoring", total=1000, unit="images") as meter:
        meter.update(done=10, note="3 failed")
    """

    def __init__(self, title: str, total: int, unit: str, already: int = 0) -> None:
        self.title, self.total, self.unit, self.already = title, total, unit, already
        self.done = already
        self.note = ""
        self.open_ended = False
        """True if the total may grow."""
        self._began = self._last = self._updated = time.monotonic()
        self._reported: int | None = None
        """Units done in the last line."""
        self._bar: Progress | None = None
        self._ended = threading.Event()

    def __enter__(self) -> Meter:
        screen = console()
        if screen.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(),
                _Left(self),
                console=screen,
            )
            self._bar.start()
            self._task = self._bar.add_task(
                self.title, total=self.total, completed=self.already, note=""
            )
        else:
            threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._bar is not None:
            self._bar.stop()
        elif kind is None and not (self.done == self.total and self._reported == self.done):
            self._line()

    @property
    def rate(self) -> float:
        """Units per second from the start to the last progress: work comes in large pieces, and
        while none is reported the ones in hand go on."""
        elapsed = self._updated - self._began
        return (self.done - self.already) / elapsed if elapsed > 0 else 0.0

    @property
    def left(self) -> float | None:
        """Seconds to the end as foreseen at the last progress, counting down since. None if that
        moment has passed, or before there is anything to foresee it from."""
        if self.open_ended or self.rate <= 0:
            return None
        left = (self.total - self.done) / self.rate - (time.monotonic() - self._updated)
        return left if left > 0 else None

    def expect(self, total: int, open_ended: bool) -> None:
        """Set the total known so far. open_ended: True if it may grow."""
        self.total, self.open_ended = total, open_ended
        if self._bar is not None:
            title = f"{self.title}, listing continues" if open_ended else self.title
            self._bar.update(self._task, total=total, description=title)

    def update(self, done: int, note: str = "") -> None:
        """Set the units done so far, including those done before the start."""
        if done != self.done:
            self._updated = time.monotonic()
        self.done, self.note = done, note
        if self._bar is not None:
            shown = f"{self.rate:,.0f} {self.unit}/s {note}"
            self._bar.update(self._task, completed=done, note=shown)
        elif time.monotonic() - self._last >= LINE_EVERY_S:
            self._line()

    def _watch(self) -> None:
        while not self._ended.wait(QUIET_S):
            if time.monotonic() - self._last >= QUIET_S:
                self._line()

    def _line(self) -> None:
        self._last = time.monotonic()
        self._reported = self.done
        quiet = self._last - self._updated
        left = self.left
        remaining = "" if left is None else f", {duration(left)} left"
        least = "at least " if self.open_ended else ""
        note = f", {self.note}" if self.note else ""
        note += f", no progress for {duration(quiet)}" if quiet >= QUIET_S else ""
        say(
            f"{self.title}: {self.done:,} of {least}{self.total:,} {self.unit}, "
            f"{self.rate:,.0f}/s{remaining}{note}"
        )


class _Left(ProgressColumn):
    """The time left as the meter foresees it."""

    def __init__(self, meter: Meter) -> None:
        super().__init__()
        self.meter = meter

    def render(self, task: Task) -> Text:
        left = self.meter.left
        return Text("" if left is None else f"{duration(left)} left", style="progress.remaining")


@contextmanager
def counted(title: str, unit: str) -> Iterator[Callable[[int], None]]:
    """Yield a callback that shows a count without a known total: live on a terminal, else in
    lines."""
    screen = console()
    if screen.is_terminal:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=screen, transient=True) as bar:
            task = bar.add_task(title)
            yield lambda num: bar.update(task, description=f"{title}: {num:,} {unit}")
        return
    last = time.monotonic()

    def line(num: int) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_EVERY_S:
            last = time.monotonic()
            say(f"{title}: {num:,} {unit} so far")

    yield line
