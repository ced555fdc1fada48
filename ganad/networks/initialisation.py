"""Weight initialisation of the DCGAN family."""

from __future__ import annotations

from torch import nn


def dcgan_init(module: nn.Module) -> None:
    """Convolutions N(0, .02), batch-norm scale N(1, .02), shift 0 (Radford et al. 2016, §3)."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(part.weight, 0.0, 0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight, 1.0, 0.02)
            nn.init.zeros_(part.bias)
            part.reset_running_stats()
