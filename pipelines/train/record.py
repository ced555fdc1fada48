"""What a training run leaves to look at: TensorBoard events and grids of pictures."""

from __future__ import annotations

import io
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from ganad.detectors.base import GradientDetector
from ganad.images.protocol import Images
from ganad.report.grid import picture_grid
from ganad.storage import files as storage
from ganad.training.trainer import Progress
from pipelines.train.job import TrainingJob
from pipelines.train.predecode import Decoded

NUM_PICTURES = 8
NUM_GRIDS = 10


class Record:
    """Kept by rank 0. Looks at validation images only, and decides nothing."""

    def __init__(
        self,
        job: TrainingJob,
        images: Images,
        decoded: Decoded,
        detector: GradientDetector[Any],
        step: int,
    ) -> None:
        self.job, self.detector = job, detector
        self._remote = storage.is_remote(job.model)
        self._folder = tempfile.mkdtemp() if self._remote else job.place("tensorboard")
        self._events = SummaryWriter(self._folder, purge_step=step)
        held_out = job.positions("validation", decoded.bad)
        if len(held_out) == 0:
            held_out = job.positions("calibration", decoded.bad)
        self._images = torch.from_numpy(images.take(held_out[: detector.num_validated]))
        self._every = max(1, math.ceil(detector.config.epochs / NUM_GRIDS))

    def losses(self, progress: Progress) -> None:
        """Losses and rate at a step."""
        for name, loss in progress.losses.items():
            self._events.add_scalar(f"loss/{name}", loss, progress.step)
        if progress.losses:
            self._events.add_scalar("images_per_second", progress.images_per_second, progress.step)
        for event in progress.events:
            self._events.add_text("event", event, progress.step)

    def epoch(self, progress: Progress) -> dict[str, float]:
        """At the end of an epoch: the score of held-out normals, and now and then a picture."""
        if len(self._images) == 0:
            return {}
        mean = float(np.mean(self.detector.score(self._images).score))
        self._events.add_scalar("validation/score", mean, progress.step)
        if progress.epoch % self._every == 0 or progress.step == progress.total:
            self._picture(progress)
        return {"validation_score": mean}

    def _picture(self, progress: Progress) -> None:
        images = self._images[:NUM_PICTURES]
        scores = self.detector.score(images, maps=True)
        rebuilt = self.detector.rebuild(images)
        grid = picture_grid(images.numpy(), rebuilt.cpu().numpy(), scores.maps)
        png = io.BytesIO()
        grid.save(png, "PNG")
        uri = self.job.place("grids", f"epoch-{progress.epoch:04d}.png")
        storage.write_bytes(uri, png.getvalue())
        self._events.add_image("grid", np.asarray(grid), progress.step, dataformats="HWC")

    def close(self) -> None:
        """Finish the event file; where the model lies on S3, bring it there."""
        self._events.close()
        if self._remote:
            for file in Path(self._folder).iterdir():
                storage.write_bytes(self.job.place("tensorboard", file.name), file.read_bytes())
