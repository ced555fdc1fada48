"""Gated PixelCNN (van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves, Kavukcuoglu: "Conditional
Image Generation with PixelCNN Decoders", NeurIPS 2016), without conditions.

    y = tanh(W_f ∗ x) ⊙ σ(W_g ∗ x) in two stacks, p(x_i | x_<i) a softmax over the levels
    A(x) = −log₂ p(x) per dimension
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ganad.detectors.likelihood.autoregressive import AutoregressiveDetector
from ganad.detectors.likelihood.config import PixelCnnConfig
from ganad.detectors.likelihood.masked import GatedBlock, PixelSoftmax


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

    def __init__(self, config: PixelCnnConfig, load_weights: bool = True) -> None:
        super().__init__(config, load_weights)
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
