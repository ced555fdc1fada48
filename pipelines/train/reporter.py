"""What the ranks of a training tell the process that a person watches."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from pipelines.console.progress import Meter, say


class Reporter:
    """An actor: rank 0 writes to it, the driver reads from it."""

    def __init__(self) -> None:
        self.latest: dict[str, Any] = {}
        self.events: list[str] = []
        self.failure: str | None = None

    def report(self, latest: dict[str, Any], events: list[str]) -> None:
        """latest: images, total_images, begun_images and note; empty if there is nothing new."""
        self.latest = latest or self.latest
        self.events += events

    def fail(self, sentence: str) -> None:
        """The training ended with an error for the user."""
        self.failure = sentence

    def read(self) -> tuple[dict[str, Any], list[str], str | None]:
        """The latest report, the events since the last call, and the error."""
        events, self.events = self.events, []
        return self.latest, events, self.failure


@contextmanager
def watched(reporter: Any, title: str) -> Iterator[None]:
    """Show progress under a title, from a thread, while the training runs."""
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(reporter, ended, title), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join(timeout=10)


def _watch(reporter: Any, ended: threading.Event, title: str) -> None:
    meter: Meter | None = None
    try:
        while True:
            is_last = ended.wait(0.5)
            latest, events, _ = ray.get(reporter.read.remote())
            for event in events:
                say(event)
            if latest:
                if meter is None:
                    total, begun = latest["total_images"], latest["begun_images"]
                    meter = Meter(title, total, "images", begun).__enter__()
                meter.update(latest["images"], latest["note"])
            if is_last:
                break
    except ray.exceptions.RayError:
        pass  # the run is ending with an error of its own, which is the one to show
    finally:
        if meter is not None:
            meter.__exit__(None, None, None)
