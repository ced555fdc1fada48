"""Ways in which training goes wrong without an error, and what is done about them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ganad import losses
from ganad.detectors.base import GradientDetector, Step
from ganad.errors import TrainingError
from ganad.networks.bigan import normal_init

COLLAPSED = 1e-5
"""A discriminator's loss below this leaves its opponents no gradient."""
MAX_RESETS = 20


def redraw_if_collapsed(
    detector: GradientDetector[Any],
    discriminator: nn.Module,
    optimizer: str,
    loss: Tensor,
    std: float,
    num_resets: Tensor,
    step: Step,
) -> None:
    """Draw the discriminator anew, its optimiser's moments too, if its loss is below COLLAPSED.

    num_resets, a buffer of the detector, is counted up; raises TrainingError beyond MAX_RESETS.
    A loss that is no number is left to the training loop, which refuses it.
    """
    if not step.mean(loss) < COLLAPSED:
        return
    num_resets += 1
    if num_resets > MAX_RESETS:
        raise TrainingError(
            f"{detector.name}: a discriminator collapsed {int(num_resets)} times (last the "
            f"{optimizer} at step {step.number}): lower learning_rate and train again"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(detector.config.seed + step.number)  # the same weights on all workers
        normal_init(discriminator, std)
    step.reset_optimizer(optimizer)
    step.event(f"{optimizer} collapsed (loss < {COLLAPSED}) and was drawn anew")


def report_if_useless(images: Tensor, x_hat: Tensor, step: Step) -> None:
    """At the last step, report reconstructions that are worse than one image for all would be."""
    if step.number + 1 < step.total:
        return
    mean = images.mean(0, keepdim=True).expand_as(images)
    ours, theirs = (step.mean(losses.contextual(images, other)) for other in (x_hat, mean))
    if ours > theirs:
        step.event(
            f"reconstructions are further from the images than their mean image is "
            f"(mean |x - x̂| {ours:.3g} against {theirs:.3g}): train for more epochs or change "
            f"learning_rate"
        )
