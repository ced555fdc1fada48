"""One rank of a training run, as a process. Run: python ranks_program.py JOB RANK

JOB is a JSON file: num, store, out, dtype, steps, resume, and cases of [detector, config].
Rank 0 writes OUT: for each case the detector's state and the whole state of the trainer.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from ganad.detectors import configure, create
from ganad.detectors.gradient import GradientDetector
from ganad.training.maps import fit_maps, moments_of
from ganad.training.trainer import Trainer

NUM_IMAGES, BATCH = 30, 10


class Images:
    """Blobs of light at places of their own, uint8 (n, c, s, s)."""

    def __init__(self, channels: int, size: int) -> None:
        rng = np.random.default_rng(0)
        y, x = np.mgrid[:size, :size]
        pixels = np.empty((NUM_IMAGES, channels, size, size), np.uint8)
        for image in pixels:
            for plane in image:
                row, column = rng.uniform(0, size, 2)
                light = np.exp(-((y - row) ** 2 + (x - column) ** 2) / 60)
                plane[:] = np.clip(255 * light + rng.normal(30, 9, (size, size)), 0, 255)
        self.pixels = pixels
        self.image_bytes = pixels[0].nbytes

    def __len__(self) -> int:
        return NUM_IMAGES

    def take(self, positions: np.ndarray) -> np.ndarray:
        return self.pixels[positions]


def train(
    name: str, values: dict[str, Any], job: dict[str, Any], rank: int, state: dict[str, Any] | None
) -> dict[str, Any]:
    """Make job["steps"] steps, or those that are left of them; returns the trainer's state."""
    config = {"image_size": 16, "channels": 1, "batch_size": BATCH, "epochs": 8, **values}
    model = create(name, configure(name, {**config, "precision": "float32"}))
    assert isinstance(model, GradientDetector)
    if job["dtype"] == "float64":
        model.double()
    images = Images(1, model.config.image_size)
    if model.maps is not None:
        fit_maps(model, moments_of(model, images, np.arange(NUM_IMAGES)))
    trainer = Trainer(
        model,
        images,
        rank=rank,
        num_ranks=job["num"],
        labels=[("round", "square")[i % 2] for i in range(NUM_IMAGES)],
    )
    if state is not None:
        trainer.restore(state)
    losses: dict[str, float] = {}
    for progress in trainer.run():
        losses = progress.losses or losses
        if progress.step == job["steps"]:
            break
    return {**trainer.state(), "losses": losses}


def main(job: dict[str, Any], rank: int) -> None:
    torch.set_num_threads(1)
    if job["dtype"] == "float64":
        # All that the library does in float32 is then done in float64.
        torch.set_default_dtype(torch.float64)
        torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
    if job["num"] > 1:
        store = dist.FileStore(job["store"], job["num"])
        dist.init_process_group("gloo", store=store, rank=rank, world_size=job["num"])
    before = torch.load(job["resume"], weights_only=True) if job["resume"] else None
    done = []
    for number, (name, values) in enumerate(job["cases"]):
        done.append(train(name, values, job, rank, before[number] if before else None))
    if rank == 0:
        torch.save(done, job["out"])
    if job["num"] > 1:
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()), int(sys.argv[2]))
