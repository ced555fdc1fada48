"""Ways in which training goes wrong without an error, and what is done about them."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from ganad import losses
from ganad.detectors.base import Step
from ganad.detectors.config import GradientConfig
from ganad.errors import TrainingError

COLLAPSED = 1e-5
"""A discriminator's loss below this leaves its opponents no gradient."""
MAX_RESETS = 20


class Guarded(Protocol):
    """A detector that counts in a buffer how often a discriminator of its was drawn anew."""

    name: ClassVar[str]
    num_resets: Tensor

    @property
    def config(self) -> GradientConfig: ...


def redraw_if_collapsed(
    detector: Guarded,
    discriminator: nn.Module,
    loss: Tensor,
    step: Step,
    draw: Callable[[nn.Module], object],
    optimizer: str = "discriminator",
) -> None:
    """Redraw the discriminator if its loss, over all workers, is below COLLAPSED.

    A loss that is no number is left to the training loop, which refuses it.
    """
    if step.mean(loss) < COLLAPSED:
        redraw(detector, discriminator, step, draw, optimizer)


def redraw(
    detector: Guarded,
    discriminator: nn.Module,
    step: Step,
    draw: Callable[[nn.Module], object],
    optimizer: str = "discriminator",
) -> None:
    """Let draw give the discriminator first weights again, and forget its optimiser's moments.

    Raises TrainingError after MAX_RESETS times.
    """
    detector.num_resets += 1
    if detector.num_resets > MAX_RESETS:
        raise TrainingError(
            f"{detector.name}: the {optimizer} collapsed {int(detector.num_resets)} times (last at "
            f"step {step.number}): lower learning_rate and train again into a fresh folder"
        )
    with torch.random.fork_rng(devices=[]):
        # From a seed of its own and on the processor: the same weights on all workers.
        torch.manual_seed(detector.config.seed + step.number)
        device = next(discriminator.parameters()).device
        discriminator.cpu()
        draw(discriminator)
        discriminator.to(device)
    step.reset_optimizer(optimizer)
    step.event(f"{optimizer} collapsed (loss < {COLLAPSED}) and was drawn anew")


def report_if_useless(images: Tensor, x_hat: Tensor, step: Step) -> None:
    """At the last step, report reconstructions that are worse than one image for all would be."""
    if step.number + 1 < step.total:
        return
    mean = step.ranks.batch_mean(images).expand_as(images)
    ours, theirs = (step.mean(losses.contextual(images, other)) for other in (x_hat, mean))
    if ours > theirs:
        step.event(
            f"reconstructions are further from the images than their mean image is "
            f"(mean |x - x̂| {ours:.3g} against {theirs:.3g}): train for more epochs or change "
            f"learning_rate"
        )
