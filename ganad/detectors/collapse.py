"""Guards against ways in which training goes wrong without an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from ganad import losses
from ganad.detectors.config import GradientConfig
from ganad.detectors.gradient import Step
from ganad.errors import TrainingError

COLLAPSED = 1e-5
"""A discriminator with a loss below this leaves its opponents no gradient."""
MAX_RESETS = 20


class Guarded(Protocol):
    """A detector with a buffer that counts discriminator resets."""

    name: ClassVar[str]
    num_resets: Tensor

    @property
    def config(self) -> GradientConfig: ...


def reset_if_collapsed(
    detector: Guarded,
    discriminator: nn.Module,
    loss: Tensor,
    step: Step,
    initialize: Callable[[nn.Module], object],
    optimizer: str = "discriminator",
) -> None:
    """Reset the discriminator if its loss, over all workers, is below COLLAPSED.

    A loss that is not a number is left to the training loop, which raises for it.
    """
    if step.mean(loss) < COLLAPSED:
        reset(detector, discriminator, step, initialize, optimizer)


def reset(
    detector: Guarded,
    discriminator: nn.Module,
    step: Step,
    initialize: Callable[[nn.Module], object],
    optimizer: str = "discriminator",
) -> None:
    """Let initialize give the discriminator first weights again, and forget its optimiser's
    moments. Raises TrainingError after MAX_RESETS times."""
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
        initialize(discriminator)
        discriminator.to(device)
    step.reset_optimizer(optimizer)
    step.event(f"{optimizer} collapsed (loss < {COLLAPSED}) and was reinitialized")


def report_if_useless(images: Tensor, x_hat: Tensor, step: Step) -> None:
    """At the last step, report reconstructions that are worse than the mean image for all."""
    if step.number + 1 < step.total:
        return
    mean = step.ranks.batch_mean(images).expand_as(images)
    error, baseline = (step.mean(losses.absolute_error(images, other)) for other in (x_hat, mean))
    if error > baseline:
        step.event(
            f"reconstructions are further from the images than their mean image is "
            f"(mean |x - x̂| {error:.3g} against {baseline:.3g}): train for more epochs or change "
            f"learning_rate"
        )
