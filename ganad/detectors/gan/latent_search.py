"""AnoGAN's search (Schlegl et al. 2017, §2.2) for the code z whose image G(z) is nearest to x.

    R(z) = Σ |x − G(z)|,  Df(z) = Σ |f(x) − f(G(z))|,  L(z) = (1 − λ)·R + λ·Df + ρ·‖z‖²

Many images are searched at once, each in a slot with its own z and its own Adam. A slot whose
search has finished takes the next image of the queue, so the batch keeps its shape to the end.
The fixed shape makes results independent of each other: processors choose kernels by the shape, the
last bits of a gradient depend on the kernel, and 500 steps along the kinks of an L1 norm turn last
bits into another z. Nothing else couples the slots, because L is summed over them, not averaged.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ganad.batch.fixed import fixed
from ganad.losses import l1_distance

ROUND = 50
"""Steps between checks for finished slots: each check waits for the device."""
IDLE = -1
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
SCHEDULE = ((0.4, 0.1), (0.6, 0.05))
"""(fraction of the steps, factor): from there on the rate is multiplied by the factor. 1e-2 to step
200, 1e-3 to 300, 5e-4 to 500 (EGBAD's implementation of AnoGAN)."""


@dataclass(frozen=True)
class SearchOptions:
    """Checked by the config that they come from."""

    steps: int = 500
    rate: float = 1e-2
    """Adam's step size at first; see SCHEDULE."""
    feature_share: float = 0.1
    """λ."""
    reduction: Literal["sum", "mean"] = "sum"
    """Over the pixels and features of one image; never over images."""
    prior: float = 0.0
    """ρ: pulls z to where G was trained; not part of the score."""
    tolerance: float = 0.0
    """A search ends when ROUND steps have lowered its best L by less than this share; 0 = never."""
    keep: Literal["last", "best"] = "last"
    """The result: the z of the last step, or the z of the lowest L."""
    slots: int = 32
    dtype: torch.dtype = torch.float32
    """Type of the networks during the search; results are evaluated in float32."""


@dataclass
class Found:
    """The ends of n searches, each float32 with n first: the code (n, latent), its image
    (n, c, h, w), the terms and their sum without the prior (n,), and the steps that it took."""

    z: Tensor
    images: Tensor
    residual: Tensor
    discrimination: Tensor
    loss: Tensor
    steps: Tensor


class LatentSearch:
    """Searches with frozen copies of a generator and of a discriminator's features."""

    def __init__(self, generator: nn.Module, features: nn.Module, options: SearchOptions) -> None:
        self.options = options
        self.generator, self.features = generator, features
        self.fast_generator = frozen(generator, options.dtype)
        self.fast_features = frozen(features, options.dtype)
        num_rounds = math.ceil(options.steps / ROUND)
        self.round_steps = math.ceil(options.steps / num_rounds)

    def run(self, images: Tensor, starts: Tensor) -> Found:
        """Images (n, c, h, w) in [-1, 1], starts (n, r, latent) -> the best of r searches each."""
        n, num_restarts, _ = starts.shape
        flags = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
        # The copies have their own precision: the caller's autocast must not change it.
        with torch.no_grad(), flags, torch.autocast(images.device.type, enabled=False):
            starts = starts.to(images.device, torch.float32).flatten(0, 1)
            found = self._search_all(images, starts, num_restarts)
            losses = found.loss.unflatten(0, (n, num_restarts))
            losses = losses.nan_to_num(nan=math.inf)
            best = losses.argmin(1) + torch.arange(n, device=images.device) * num_restarts
            return Found(*(values[best] for values in vars(found).values()))

    def _search_all(self, images: Tensor, starts: Tensor, num_restarts: int) -> Found:
        options, num_slots = self.options, self.options.slots
        targets = self._targets(images)
        waiting = deque(range(len(starts)))
        job = [IDLE] * num_slots
        slots = _Slots.empty(num_slots, starts)
        results = _empty_results(images, starts)
        while True:
            free = [slot for slot in range(num_slots) if job[slot] == IDLE]
            for slot in free[: len(waiting)]:
                job[slot] = waiting.popleft()
                slots.enter(slot, starts[job[slot]])
            if max(job) == IDLE:
                return results
            # An idle slot goes on with any image, so that the shape stays.
            index = torch.tensor(job, device=images.device).clamp(min=0) // num_restarts
            x = images[index].contiguous(memory_format=torch.channels_last)
            f_x = targets[index]
            lowest = slots.lowest.clone()
            for _ in range(self.round_steps):
                self._step(slots, x, f_x)
            done = slots.steps >= options.steps
            if options.tolerance > 0:
                # A loss of nan never gets lower, so such a search ends here too.
                done = done | ~(slots.lowest < (1 - options.tolerance) * lowest)
            finished = [slot for slot in done.nonzero().flatten().tolist() if job[slot] != IDLE]
            if finished:
                ends = self._results(slots, x)
                jobs = torch.tensor([job[slot] for slot in finished], device=images.device)
                for name, values in vars(results).items():
                    values[jobs] = getattr(ends, name)[finished]
                for slot in finished:
                    job[slot] = IDLE

    def _step(self, slots: _Slots, x: Tensor, f_x: Tensor) -> None:
        """One step of Adam in every slot."""
        options = self.options
        with torch.enable_grad():
            z = slots.z.requires_grad_()
            image = self.fast_generator(z.to(options.dtype))
            residual = self._distance(x, image)
            discrimination = self._distance(f_x, self.fast_features(image))
            loss = self._total(residual, discrimination)
            if options.prior:
                loss = loss + options.prior * z.square().sum(1)
            (gradient,) = torch.autograd.grad(loss.sum(), z)
        slots.advance(loss.detach(), gradient, options)

    def _results(self, slots: _Slots, x: Tensor) -> Found:
        last = self._evaluate(slots.z.detach(), slots.steps, x)
        if self.options.keep == "last":
            return last
        best = self._evaluate(slots.best, slots.steps, x)
        better = best.loss < last.loss
        return Found(
            *(
                torch.where(better.reshape(-1, *[1] * (one.ndim - 1)), one, other)
                for one, other in zip(vars(best).values(), vars(last).values(), strict=True)
            )
        )

    def _evaluate(self, z: Tensor, steps: Tensor, x: Tensor) -> Found:
        """The terms at z, by the networks themselves in float32."""
        image = self.generator(z).float()
        residual = self._distance(x, image)
        discrimination = self._distance(self.features(x), self.features(image))
        total = self._total(residual, discrimination)
        return Found(z, image, residual, discrimination, total, steps.clamp(max=self.options.steps))

    def _total(self, residual: Tensor, discrimination: Tensor) -> Tensor:
        share = self.options.feature_share
        return (1 - share) * residual + share * discrimination

    def _distance(self, one: Tensor, other: Tensor) -> Tensor:
        summed = l1_distance(one, other, torch.float32)
        return summed if self.options.reduction == "sum" else summed / one[0].numel()

    def _targets(self, images: Tensor) -> Tensor:
        """f(x) of all images, in batches of one shape."""
        parts = []
        for some in images.split(self.options.slots):
            batch, num = fixed(some, self.options.slots)
            batch = batch.contiguous(memory_format=torch.channels_last)
            parts.append(self.fast_features(batch.to(self.options.dtype)).float()[:num])
        return torch.cat(parts)


@dataclass
class _Slots:
    """The state of the searches in progress, one row each."""

    z: Tensor
    mean: Tensor
    variance: Tensor
    steps: Tensor
    lowest: Tensor
    best: Tensor

    @staticmethod
    def empty(num_slots: int, starts: Tensor) -> _Slots:
        z = starts.new_zeros(num_slots, starts.shape[1])
        steps = torch.zeros(num_slots, dtype=torch.long, device=z.device)
        lowest = torch.full((num_slots,), math.inf, device=z.device)
        return _Slots(z, z.clone(), z.clone(), steps, lowest, z.clone())

    def enter(self, slot: int, start: Tensor) -> None:
        self.z = self.z.detach()
        self.z[slot] = self.best[slot] = start
        self.mean[slot] = self.variance[slot] = 0
        self.steps[slot] = 0
        self.lowest[slot] = math.inf

    def advance(self, loss: Tensor, gradient: Tensor, options: SearchOptions) -> None:
        """Adam (Kingma & Ba 2015), each row with its own count of steps."""
        lower = loss < self.lowest
        self.lowest = torch.where(lower, loss, self.lowest)
        self.best = torch.where(lower[:, None], self.z.detach(), self.best)
        done = self.steps[:, None].float()
        rate = torch.full_like(done, options.rate)
        for share, factor in SCHEDULE:
            rate = torch.where(done >= share * options.steps, factor * options.rate, rate)
        rate = torch.where(done < options.steps, rate, 0.0)
        self.steps += 1
        count = done + 1
        self.mean = BETA1 * self.mean + (1 - BETA1) * gradient
        self.variance = BETA2 * self.variance + (1 - BETA2) * gradient.square()
        mean = self.mean / (1 - BETA1**count)
        variance = self.variance / (1 - BETA2**count)
        self.z = self.z.detach() - rate * mean / (variance.sqrt() + EPSILON)


def _empty_results(images: Tensor, starts: Tensor) -> Found:
    num_jobs = len(starts)
    nothing = images.new_full((num_jobs,), math.nan)
    return Found(
        z=starts.clone(),
        images=images.new_full((num_jobs, *images.shape[1:]), math.nan),
        residual=nothing,
        discrimination=nothing.clone(),
        loss=nothing.clone(),
        steps=torch.zeros(num_jobs, dtype=torch.long, device=images.device),
    )


def frozen(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy in eval mode without gradients. Batch norms that follow a convolution are folded into
    its weights: another pass over every activation is a third of the time."""
    network = copy.deepcopy(network).eval().requires_grad_(False)
    for part in list(network.modules()):
        if isinstance(part, nn.Sequential):
            _fold(part)
    return network.to(dtype=dtype).to(memory_format=torch.channels_last)


def _fold(layers: nn.Sequential) -> None:
    for i in range(len(layers) - 1):
        convolution, norm = layers[i], layers[i + 1]
        if not isinstance(norm, nn.BatchNorm2d):
            continue
        if isinstance(convolution, nn.Conv2d | nn.ConvTranspose2d):
            transposed = isinstance(convolution, nn.ConvTranspose2d)
            layers[i] = nn.utils.fuse_conv_bn_eval(convolution, norm, transposed)
            layers[i].requires_grad_(False)
            layers[i + 1] = nn.Identity()
