"""The record of a training run: its history, its curves, TensorBoard events, grids of pictures."""

from __future__ import annotations

import io
import math
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ganad.detectors.gradient import GradientDetector
from ganad.images.protocol import Images
from ganad.report.grid import picture_grid
from ganad.storage import files as storage
from ganad.training.flat import why_flat
from ganad.training.trainer import Progress

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

NUM_PICTURES = 8
NUM_GRIDS = 10
SHOWN_BYTES = 2**28
"""Held-out images, or raw maps, that stay in memory."""
MAX_POINTS = 400
"""Points of a curve; whenever there are more, every other one is dropped."""


class Curve:
    """Losses and rate by step, evenly spaced however long the run becomes."""

    def __init__(self, points: Iterable[dict[str, Any]] = ()) -> None:
        self.points = list(points)

    def add(self, step: int, values: dict[str, float]) -> None:
        """Add a point, unless it is nearer to the last one than the others are to each other."""
        steps = [point["step"] for point in self.points]
        if len(steps) > 1 and step - steps[-1] < steps[1] - steps[0]:
            return
        self.points.append({"step": step, **values})
        if len(self.points) > MAX_POINTS:
            self.points = self.points[::2]


class Record:
    """Follows a training run. It looks at held-out images only, and decides nothing.

    Usage: add() after every step of Trainer.run(), close() at the end.
    """

    def __init__(
        self,
        folder: str | None,
        images: Images,
        positions: np.ndarray,
        detector: GradientDetector[Any],
        step: int = 0,
        state: dict[str, Any] | None = None,
        pixels: Images | None = None,
    ) -> None:
        """folder: where files are written, MODEL/training; None = nothing is written.

        positions: of the held-out images that are scored and shown, the first few of them. step,
        state: where a resumed run goes on. pixels: where images are raw maps, the images to show.
        """
        self.folder, self.detector = folder, detector
        self.history: list[dict[str, Any]] = list(state["history"]) if state else []
        self.curve = Curve(state["curve"] if state else ())
        # Photographs are large: their scores are shown as a curve, for which fewer do as well.
        room = max(NUM_PICTURES, SHOWN_BYTES // images.image_bytes)
        shown = positions[: min(detector.num_validated, room)]
        self._images = torch.from_numpy(images.take(shown)) if len(shown) else None
        self._pictures = (pixels or images).take(shown[:NUM_PICTURES]) if len(shown) else None
        self._every = max(1, math.ceil(detector.config.epochs / NUM_GRIDS))
        self._events = None if folder is None else _Events(folder, step)

    @property
    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"history": self.history, "curve": self.curve.points}

    def add(self, progress: Progress) -> None:
        """Record a step; at the end of an epoch, also the score of the held-out images; at the last
        step, add an event if they are rebuilt as flat colours."""
        if progress.losses:
            rate = {"images_per_second": progress.images_per_second}
            self.curve.add(progress.step, {**progress.losses, **rate})
        if progress.epoch_ended:
            entry = {"epoch": progress.epoch, "step": progress.step, **progress.losses}
            self.history.append(entry | self._validate(progress))
        if progress.step == progress.total and self._images is not None:
            flat = why_flat(self.detector, self._images[: self.detector.scoring_batch])
            # Among the others, so that all who follow the run see it.
            progress.events += [] if flat is None else [flat]
        self.history += [{"step": progress.step, "event": event} for event in progress.events]
        if self._events is not None:
            self._events.add(progress)

    def _validate(self, progress: Progress) -> dict[str, float]:
        if self._images is None:
            return {}
        mean = float(np.mean(self.detector.score(self._images).score))
        if self._events is not None:
            self._events.writer.add_scalar("validation/score", mean, progress.step)
            if progress.epoch % self._every == 0 or progress.step == progress.total:
                self._events.add_grid(self._grid(), progress)
        return {"validation_score": mean}

    def _grid(self) -> Any:
        assert self._images is not None
        assert self._pictures is not None
        images = self._images[:NUM_PICTURES]
        scores = self.detector.score(images, maps=True)
        rebuilt = self.detector.rebuild(images)
        return picture_grid(
            self._pictures, None if rebuilt is None else rebuilt.cpu().numpy(), scores.maps
        )

    def close(self) -> None:
        """Write the curves, and finish the event file."""
        if self._events is not None:
            self._events.close(self.curve)


class _Events:
    """The files of a record: TensorBoard's events, pictures and curves."""

    def __init__(self, folder: str, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a second to import

        self.folder = folder
        self._remote = storage.is_remote(folder)
        self._place = tempfile.mkdtemp() if self._remote else storage.join(folder, "tensorboard")
        self.writer: SummaryWriter = SummaryWriter(self._place, purge_step=step)

    def add(self, progress: Progress) -> None:
        for name, loss in progress.losses.items():
            self.writer.add_scalar(f"loss/{name}", loss, progress.step)
        if progress.losses:
            self.writer.add_scalar("images_per_second", progress.images_per_second, progress.step)
        for event in progress.events:
            self.writer.add_text("event", event, progress.step)

    def add_grid(self, grid: Any, progress: Progress) -> None:
        png = io.BytesIO()
        grid.save(png, "PNG")
        uri = storage.join(self.folder, "grids", f"epoch-{progress.epoch:04d}.png")
        storage.write_bytes(uri, png.getvalue())
        self.writer.add_image("grid", np.asarray(grid), progress.step, dataformats="HWC")

    def close(self, curve: Curve) -> None:
        storage.write_json(storage.join(self.folder, "curves.json"), curve.points)
        self.writer.close()
        if self._remote:
            for file in Path(self._place).iterdir():
                uri = storage.join(self.folder, "tensorboard", file.name)
                storage.write_bytes(uri, file.read_bytes())
