"""Gated PixelCNN (van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves, Kavukcuoglu: "Conditional
Image Generation with PixelCNN Decoders", NeurIPS 2016), without conditions.

    y = tanh(W_f ∗ x) ⊙ σ(W_g ∗ x) in two stacks, p(x_i | x_<i) a softmax over the levels
    A(x) = −log₂ p(x) per dimension
"""

from __future__ import annotations

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from ganad.detectors.likelihood.autoregressive import AutoregressiveConfig, AutoregressiveDetector
from ganad.detectors.likelihood.masked import GatedBlock, PixelSoftmax
from ganad.errors import ConfigError


class PixelCnnConfig(AutoregressiveConfig):
    """Defaults: a network that a processor can train. The preset `paper` has the paper's."""

    learning_rate: float = Field(default=1e-3, gt=0)
    """Adam's. The paper names none."""
    layers: int = Field(default=7, ge=1)
    """Gated layers, the first one with the image's own mask included."""
    width: int = Field(default=48, ge=1)
    """Features of each stack; a multiple of channels, as the colours share them."""
    kernel: int = Field(default=3, ge=3)
    """Side of the kernels after the first layer; odd."""
    first_kernel: int = Field(default=7, ge=3)
    """Side of the first layer's kernel; odd."""

    @model_validator(mode="after")
    def _check(self) -> PixelCnnConfig:
        self.check_width("width", self.width)
        for key in ("kernel", "first_kernel"):
            if getattr(self, key) % 2 == 0:
                raise ConfigError(f"{key}={getattr(self, key)} is even: use an odd number")
        return self


class GatedPixelCnn(nn.Module):
    """Images n×c×h×w -> logits n×c×levels×h×w, of any height and width."""

    def __init__(
        self, channels: int, width: int, layers: int, kernel: int, first_kernel: int, levels: int
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            [GatedBlock(channels, width, first_kernel, channels, first=True)]
        )
        self.blocks.extend(GatedBlock(width, width, kernel, channels) for _ in range(layers - 1))
        self.softmax = PixelSoftmax(width, width, channels, levels)

    def forward(self, x: Tensor) -> Tensor:
        vertical = horizontal = x
        for block in self.blocks:
            vertical, horizontal = block(vertical, horizontal)
        return self.softmax(horizontal)


class PixelCnn(AutoregressiveDetector[PixelCnnConfig]):
    name = "pixelcnn"
    summary = "gated PixelCNN; score = negative log-likelihood in bits per dimension"
    paper = "van den Oord et al., Conditional Image Generation with PixelCNN Decoders, 2016"
    good_at = "local texture that the normal images do not have; exact likelihoods, pixel by pixel"
    bad_at = "plain anomalies among rich normal images, which it finds likely: score=complexity"
    Config = PixelCnnConfig

    def __init__(self, config: PixelCnnConfig) -> None:
        super().__init__(config)
        self.network = GatedPixelCnn(
            config.channels,
            config.width,
            config.layers,
            config.kernel,
            config.first_kernel,
            config.levels,
        )

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        rate = self.config.learning_rate
        return {"network": torch.optim.Adam(self.network.parameters(), lr=rate)}

    def logits(self, x: Tensor) -> Tensor:
        return self.network(x)
