"""The training loop of all methods trained by gradient, written once: one process, or a rank of
many. It knows no Ray and writes no file; its caller takes the state and decides what to do."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from ganad.batch.augment import augment
from ganad.batch.norms import share_batch
from ganad.batch.patches import draw
from ganad.batch.ranks import Ranks
from ganad.detectors.gradient import GradientDetector, Step
from ganad.errors import TrainingError
from ganad.images.protocol import Images
from ganad.training.prefetch import one_ahead

CHECK_EVERY = 25
"""Steps between looks at the losses: a look waits for the device."""


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
    """Over all workers and since the last report, while it was training; nan between reports."""
    events: list[str] = field(default_factory=list)


class Trainer:
    """Trains one detector on one rank.

    The order of images is a function of (seed, epoch), as are the windows that are drawn from them
    where the detector works on patches, and noise is one of (seed, step): a resumed run repeats the
    steps of an undisturbed one exactly. Several ranks share each batch and make the same steps as
    one, to rounding: gradients and losses are means over all images, batch statistics are the whole
    batch's, and noise is drawn for the whole batch (see ganad.batch.ranks). So a run may
    be resumed on another number of ranks.
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
        self.images, self.ranks = images, Ranks(rank, num_ranks)
        self.device = torch.device(device)
        self.optimizers = detector.optimizers()
        for optimizer in self.optimizers.values():
            if isinstance(optimizer, torch.optim.Adam):
                # One pass over the weights in place of seven: 33 ms in place of 85 for GANomaly.
                for group in optimizer.param_groups:
                    group["fused"] = True
        self.parameters = {
            name: [p for group in optimizer.param_groups for p in group["params"]]
            for name, optimizer in self.optimizers.items()
        }
        config = detector.config
        per_image = 1 if config.patch is None else config.patch.per_image
        self.num_inputs = len(images) * per_image
        self.batch_size = min(config.batch_size, self.num_inputs)
        if self.batch_size < max(2, num_ranks):
            raise TrainingError(
                f"{len(images)} training images at batch_size={config.batch_size} are too few for "
                f"{num_ranks} workers: a step needs 2 images, and one for each worker; give more "
                f"images, a larger batch_size or fewer workers"
            )
        self.ranks.num_images = self.batch_size
        share_batch(detector, self.ranks)
        self.steps_per_epoch = self.num_inputs // self.batch_size  # the ragged end is dropped
        self.total = self.steps_per_epoch * config.epochs
        self.step = 0
        self.numbers = None if labels is None else detector.label_numbers(labels)
        self.seconds = 0.0
        """Time spent in steps by this process, waiting for images included."""
        self._events: list[str] = []
        self._drawn = (-1, np.empty(0, np.int64), np.empty((0, 2), np.int64))
        self._sums: dict[str, Tensor] = {}
        self._num_summed = 0
        self._flat: dict[str, Tensor] = {}

    # Resuming

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs; the random state is a function of the step.

        To be called by every rank, and the same for all of them.
        """
        return {
            "step": self.step,
            "detector": self.detector.state_dict(),
            "optimizers": {name: o.state_dict() for name, o in self.optimizers.items()},
            "sums": {name: self.ranks.mean(total) for name, total in self._sums.items()},
            "num_summed": self._num_summed,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state of the same detector, images and config, on any number of ranks."""
        self.detector.load_state_dict(state["detector"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.step = state["step"]
        self._sums = {name: total.to(self.device) for name, total in state["sums"].items()}
        self._num_summed = state["num_summed"]

    # The loop

    def run(self) -> Iterator[Progress]:
        """Train to the end, pausing after every step."""
        self._synchronise(self.detector.parameters(), self.detector.buffers())
        began, first = time.perf_counter(), self.step
        reported = (first, self.seconds)
        self.detector.train()
        # Images of the next step are fetched during this one. Which they are is a function of its
        # number, so that no random state is shared with the thread.
        with closing(one_ahead(range(first, self.total), self._batch)) as batches:
            for chosen, pixels in batches:
                losses = self._one_step(chosen, pixels)
                self.step += 1
                for name, loss in losses.items():
                    self._sums[name] = self._sums[name] + loss if name in self._sums else loss
                self._num_summed += 1
                epoch_ended = self.step % self.steps_per_epoch == 0
                report: dict[str, float] = {}
                rate = math.nan
                self.seconds += time.perf_counter() - began
                if epoch_ended or self.step % CHECK_EVERY == 0:
                    num = self._num_summed
                    report = {name: self._mean(total / num) for name, total in self._sums.items()}
                    self._refuse_nonfinite(report, num)
                    since, before = reported
                    rate = (self.step - since) * self.batch_size / (self.seconds - before)
                    reported = (self.step, self.seconds)
                    self._sums, self._num_summed = {}, 0
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
                began = time.perf_counter()
                self.detector.train()  # the caller may have scored in between
        self.detector.eval()

    def _batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """This rank's inputs of a step, their numbers and their pixels; made in the thread."""
        epoch, number = divmod(step, self.steps_per_epoch)
        chosen = self._chosen(epoch, number)
        return chosen, self._inputs(epoch, chosen)

    def _chosen(self, epoch: int, number: int) -> np.ndarray:
        """This rank's share of a batch: numbers of inputs, of which each image makes per_image."""
        order, _ = self._draw(epoch)
        batch = order[number * self.batch_size : (number + 1) * self.batch_size]
        return batch[self.ranks.rank :: self.ranks.num]

    def _draw(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The order of the epoch's inputs, and the top and left of each one's window."""
        if self._drawn[0] != epoch:
            config = self.detector.config
            generator = np.random.default_rng([config.seed, epoch])
            order = generator.permutation(self.num_inputs)
            corners = np.empty((0, 2), np.int64)
            if config.patch is not None:
                corners = draw(generator, self.num_inputs, config.image_size, config.patch)
            self._drawn = (epoch, order, corners)
        return self._drawn[1:]

    def _inputs(self, epoch: int, chosen: np.ndarray) -> np.ndarray:
        """uint8 (k, c, s, s), images or windows of them."""
        patch, positions = self.detector.config.patch, chosen % len(self.images)
        if patch is None:
            return self.images.take(positions)
        _, corners = self._draw(epoch)
        return self.images.crops(positions, corners[chosen], patch.size)

    def _one_step(self, chosen: np.ndarray, pixels: np.ndarray) -> dict[str, Tensor]:
        words = [self.detector.config.seed, self.step]
        torch.manual_seed(int(np.random.SeedSequence(words).generate_state(1)[0]))
        step = Step(
            update=self._update,
            number=self.step,
            total=self.total,
            mean=self._mean,
            reset_optimizer=self._reset_optimizer,
            event=self._events.append,
            ranks=self.ranks,
            labels=None
            if self.numbers is None
            else self.numbers[chosen % len(self.images)].to(self.device),
        )
        inputs = self.detector.inputs(
            torch.from_numpy(pixels), lambda x: augment(x, self.detector.config.augment, self.ranks)
        )
        with self.detector.autocast():
            return self.detector.training_step(inputs, step)

    def _update(self, name: str, loss: Tensor) -> None:
        parameters = self.parameters[name]
        with torch.autocast(self.device.type, enabled=False):
            if self.ranks.num > 1:
                loss = loss * self.ranks.share
            # Only these parameters get a gradient, whatever else the loss has passed through.
            given = torch.autograd.grad(loss, parameters, retain_graph=True)
            gradients = list(map(_laid_like, parameters, given))
            if self.ranks.num > 1:
                # One reduction per update. DistributedDataParallel would want one forward per
                # backward and a wrapper per network; a flat sum has no such conditions.
                # Its memory is kept from step to step: fresh memory costs more than the sum.
                flat = torch.cat([*map(_as_in_memory, gradients)], out=self._flat.get(name))
                self._flat[name] = flat
                dist.all_reduce(flat)
                pieces = flat.split([gradient.numel() for gradient in gradients])
                gradients = [
                    piece.as_strided(parameter.shape, parameter.stride(), piece.storage_offset())
                    for piece, parameter in zip(pieces, parameters, strict=True)
                ]
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
        return self.ranks.mean(value.detach().float()).item()

    def _synchronise(self, *tensors: Iterator[Tensor]) -> None:
        if self.ranks.num > 1:
            for group in tensors:
                for tensor in group:
                    dist.broadcast(tensor.detach(), src=0)

    def _refuse_nonfinite(self, losses: dict[str, float], num_summed: int) -> None:
        broken = [name for name, loss in losses.items() if not math.isfinite(loss)]
        if broken:
            raise TrainingError(
                f"{self.detector.name}: the {broken[0]} loss became {losses[broken[0]]} between "
                f"steps {self.step - num_summed} and {self.step}: lower learning_rate, or set "
                f"precision to float32, and train again into a fresh folder"
            )


def _laid_like(parameter: Tensor, gradient: Tensor) -> Tensor:
    """The gradient, in the parameter's order in memory, as the fused step on a CPU wants it; those
    of a gradient penalty have another."""
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


def _as_in_memory(tensor: Tensor) -> Tensor:
    """(numel,): the values in the order in which they lie, without a copy."""
    return tensor.as_strided((tensor.numel(),), (1,), tensor.storage_offset())
