"""The optimisers and the count of resets that every GAN has."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from ganad.detectors.gan.config import GanConfig
from ganad.detectors.gradient import GradientDetector

GanConfigT = TypeVar("GanConfigT", bound=GanConfig)


class GanDetector(GradientDetector[GanConfigT]):
    """A detector with a discriminator that may collapse (see ganad.detectors.collapse)."""

    num_resets: Tensor
    """How often a discriminator was reset; a buffer, so that a resumed run goes on counting."""

    def __init__(self, config: GanConfigT, load_weights: bool = True) -> None:
        super().__init__(config, load_weights)
        self.register_buffer("num_resets", torch.zeros((), dtype=torch.long))

    def adam(self, *networks: nn.Module) -> torch.optim.Adam:
        """One optimiser over all parameters of the networks."""
        parameters = [one for network in networks for one in network.parameters()]
        return torch.optim.Adam(parameters, lr=self.config.learning_rate, betas=self.config.betas)
