"""The training loop of all methods trained by gradient, written once: one process, or a rank of
many. It knows no Ray and writes no file; its caller takes the state and decides what to do."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from ganad.detectors.base import GradientDetector, Step
from ganad.errors import TrainingError

CHECK_EVERY = 25
"""Steps between looks at the losses: a look waits for the device."""


class Images(Protocol):
    """Decoded training images: uint8 (n, c, h, w), taken by position."""

    def __len__(self) -> int: ...
    def take(self, positions: np.ndarray) -> np.ndarray: ...


@dataclass
class Progress:
    """Where training stands after a step."""

    step: int
    total: int
    epoch: int
    """Whole passes done."""
    epoch_ended: bool
    losses: dict[str, float]
    """Means since the last report, over all workers; empty between reports."""
    images_per_second: float
    """Over all workers, since this process began; nan until the first report."""
    events: list[str] = field(default_factory=list)


class Trainer:
    """Trains one detector on one rank.

    The order of images is a function of (seed, epoch), a rank's share of (batch, rank), and noise
    of (seed, step, rank): a resumed run repeats the steps of an undisturbed one exactly. Gradients
    are averaged over ranks; batch statistics are each rank's own, and the running ones are
    averaged at the end of each epoch.
    """

    def __init__(
        self,
        detector: GradientDetector[Any],
        images: Images,
        *,
        rank: int = 0,
        num_ranks: int = 1,
        device: str | torch.device = "cpu",
        labels: Sequence[str | None] | None = None,
    ) -> None:
        """labels: of the images, in their order, for methods that learn from them."""
        self.detector = detector.to(device).to(memory_format=torch.channels_last)
        self.images, self.rank, self.num_ranks = images, rank, num_ranks
        self.device = torch.device(device)
        self.optimizers = detector.optimizers()
        self.parameters = {
            name: [p for group in optimizer.param_groups for p in group["params"]]
            for name, optimizer in self.optimizers.items()
        }
        config = detector.config
        self.batch_size = min(config.batch_size, len(images)) // num_ranks * num_ranks
        if self.batch_size < 2 * num_ranks:
            raise TrainingError(
                f"{len(images)} training images at batch_size={config.batch_size} are too few for "
                f"{num_ranks} workers: each needs 2 images per step; give more images, a larger "
                f"batch_size or fewer workers"
            )
        self.steps_per_epoch = len(images) // self.batch_size  # the ragged end is dropped
        self.total = self.steps_per_epoch * config.epochs
        self.step = 0
        self.numbers = None if labels is None else detector.label_numbers(labels)
        self._events: list[str] = []

    # Resuming

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs; the random state is a function of the step."""
        return {
            "step": self.step,
            "detector": self.detector.state_dict(),
            "optimizers": {name: o.state_dict() for name, o in self.optimizers.items()},
            "num_ranks": self.num_ranks,
            "batch_size": self.batch_size,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state of the same detector, images and config."""
        if state["batch_size"] != self.batch_size:
            raise TrainingError(
                f"batch_size={self.batch_size} differs from the interrupted run's "
                f"{state['batch_size']}: use as many workers as before"
            )
        self.detector.load_state_dict(state["detector"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.step = state["step"]

    # The loop

    def run(self) -> Iterator[Progress]:
        """Train to the end, pausing after every step."""
        self._synchronise(self.detector.parameters(), self.detector.buffers())
        began, first = time.perf_counter(), self.step
        sums: dict[str, Tensor] = {}
        num_summed = 0
        rate = math.nan
        self.detector.train()
        while self.step < self.total:
            epoch, batch_number = divmod(self.step, self.steps_per_epoch)
            losses = self._one_step(self._chosen(epoch, batch_number))
            self.step += 1
            for name, loss in losses.items():
                sums[name] = sums[name] + loss if name in sums else loss
            num_summed += 1
            epoch_ended = batch_number + 1 == self.steps_per_epoch
            report: dict[str, float] = {}
            if epoch_ended or self.step % CHECK_EVERY == 0:
                report = {name: self._mean(total / num_summed) for name, total in sums.items()}
                self._refuse_nonfinite(report, num_summed)
                rate = (self.step - first) * self.batch_size / (time.perf_counter() - began)
                sums, num_summed = {}, 0
            if epoch_ended:
                self._average_buffers()
            events, self._events = self._events, []
            yield Progress(
                self.step,
                self.total,
                self.step // self.steps_per_epoch,
                epoch_ended,
                report,
                rate,
                events,
            )
            self.detector.train()  # the caller may have scored in between
        self.detector.eval()

    def _chosen(self, epoch: int, number: int) -> np.ndarray:
        """Positions of this rank's images in a batch."""
        generator = np.random.default_rng([self.detector.config.seed, epoch])
        order = generator.permutation(len(self.images))
        batch = order[number * self.batch_size : (number + 1) * self.batch_size]
        return batch[self.rank :: self.num_ranks]

    def _one_step(self, chosen: np.ndarray) -> dict[str, Tensor]:
        words = [self.detector.config.seed, self.step, self.rank]
        torch.manual_seed(int(np.random.SeedSequence(words).generate_state(1)[0]))
        step = Step(
            update=self._update,
            number=self.step,
            total=self.total,
            mean=self._mean,
            reset_optimizer=self._reset_optimizer,
            event=self._events.append,
            labels=None if self.numbers is None else self.numbers[chosen].to(self.device),
        )
        prepared = self.detector.prepare(torch.from_numpy(self.images.take(chosen)))
        with self.detector.autocast():
            return self.detector.training_step(prepared, step)

    def _update(self, name: str, loss: Tensor) -> None:
        parameters = self.parameters[name]
        with torch.autocast(self.device.type, enabled=False):
            # Only these parameters get a gradient, whatever else the loss has passed through.
            gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
            if self.num_ranks > 1:
                # One reduction per update. DistributedDataParallel would want one forward per
                # backward and a wrapper per network; a flat sum has no such conditions.
                flat = torch.cat([gradient.float().flatten() for gradient in gradients])
                dist.all_reduce(flat)
                flat /= self.num_ranks
                pieces = flat.split([gradient.numel() for gradient in gradients])
                gradients = tuple(
                    piece.view_as(gradient)
                    for piece, gradient in zip(pieces, gradients, strict=True)
                )
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            self.optimizers[name].step()
            self.optimizers[name].zero_grad(set_to_none=True)
        # Autocast keeps bfloat16 copies of weights, which the step has just made stale.
        torch.clear_autocast_cache()

    def _reset_optimizer(self, name: str) -> None:
        self.optimizers[name].state.clear()

    # Ranks together

    def _mean(self, value: Tensor) -> float:
        value = value.detach().float().clone()
        if self.num_ranks > 1:
            dist.all_reduce(value)
            value /= self.num_ranks
        return value.item()

    def _synchronise(self, *tensors: Iterator[Tensor]) -> None:
        if self.num_ranks > 1:
            for group in tensors:
                for tensor in group:
                    dist.broadcast(tensor.detach(), src=0)

    def _average_buffers(self) -> None:
        if self.num_ranks > 1:
            for buffer in self.detector.buffers():
                if buffer.is_floating_point():
                    dist.all_reduce(buffer)
                    buffer /= self.num_ranks

    def _refuse_nonfinite(self, losses: dict[str, float], num_summed: int) -> None:
        broken = [name for name, loss in losses.items() if not math.isfinite(loss)]
        if broken:
            raise TrainingError(
                f"{self.detector.name}: the {broken[0]} loss became {losses[broken[0]]} between "
                f"steps {self.step - num_summed} and {self.step}: lower learning_rate, or set "
                f"precision to float32, and train again into a fresh folder"
            )
