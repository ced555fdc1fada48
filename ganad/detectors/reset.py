"""The guard of the DCGAN-like discriminators: what to do when D has won and teaches G nothing."""

from __future__ import annotations

from torch import Tensor, nn

from ganad.detectors.base import Step
from ganad.errors import TrainingError
from ganad.networks.initialisation import reinitialise

COLLAPSED = 1e-5
"""L_D below this means that D has won: the authors of GANomaly then draw D anew."""
MAX_RESETS = 20


def reset_if_collapsed(
    name: str, discriminator: nn.Module, num_resets: Tensor, loss: Tensor, step: Step, seed: int
) -> None:
    """Draw D anew, moments and all, when its adversarial loss has vanished on all workers.

    num_resets: the detector's buffer, counted up in place. The optimiser is "discriminator". A
    loss that is no number is left to the training loop, which refuses it. Raises TrainingError
    after MAX_RESETS times.
    """
    if not step.mean(loss) < COLLAPSED:
        return
    num_resets += 1
    if num_resets > MAX_RESETS:
        raise TrainingError(
            f"{name}: the discriminator collapsed {int(num_resets)} times "
            f"(last at step {step.number}): lower learning_rate and train again"
        )
    reinitialise(discriminator, seed + step.number)
    step.reset_optimizer("discriminator")
    step.event(f"discriminator collapsed (L_D < {COLLAPSED}) and was drawn anew")
