"""PixelRNN with Row LSTM layers (van den Oord, Kalchbrenner, Kavukcuoglu: "Pixel Recurrent Neural
Networks", ICML 2016).

    a 7×7 convolution of mask A, Row LSTM layers with residuals, p(x_i | x_<i) a softmax
    A(x) = −log₂ p(x) per dimension
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from ganad.detectors.likelihood.autoregressive import AutoregressiveConfig, AutoregressiveDetector
from ganad.detectors.likelihood.masked import MaskedConv2d, PixelSoftmax, RowLstm
from ganad.errors import ConfigError


class PixelRnnConfig(AutoregressiveConfig):
    """Defaults: a network that a processor can train. The preset `paper` has the paper's."""

    largest_input: ClassVar[int] = 64

    image_size: int = Field(default=32, ge=8, le=8192)
    """Side in pixels; rows are walked one after another, so time grows faster than its square."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """RMSProp's. The paper set it by hand for each data set."""
    layers: int = Field(default=7, ge=1)
    """Row LSTM layers."""
    hidden: int = Field(default=18, ge=1)
    """h, features of a state; a multiple of channels, as the colours share them."""
    kernel: int = Field(default=3, ge=3)
    """k of the 1×k kernels; odd. The paper wants 3 at least."""
    head_width: int = Field(default=36, ge=1)
    """Features of the 1×1 layers before the softmax; a multiple of channels."""

    @model_validator(mode="after")
    def _check(self) -> PixelRnnConfig:
        self.check_width("hidden", self.hidden)
        self.check_width("head_width", self.head_width)
        if self.kernel % 2 == 0:
            raise ConfigError(f"kernel={self.kernel} is even: use an odd number")
        return self


class RowLstmNetwork(nn.Module):
    """Images n×c×h×w -> logits n×c×levels×h×w, of any height and width."""

    def __init__(
        self, channels: int, hidden: int, layers: int, kernel: int, head_width: int, levels: int
    ) -> None:
        super().__init__()
        self.first = MaskedConv2d(channels, 2 * hidden, (7, 7), "A", channels)
        self.rows = nn.Sequential(*(RowLstm(hidden, kernel, channels) for _ in range(layers)))
        self.softmax = PixelSoftmax(2 * hidden, head_width, channels, levels)

    def forward(self, x: Tensor) -> Tensor:
        return self.softmax(self.rows(self.first(x)))


class PixelRnn(AutoregressiveDetector[PixelRnnConfig]):
    name = "pixelrnn"
    summary = "PixelRNN of Row LSTMs; score = negative log-likelihood in bits per dimension"
    paper = "van den Oord et al., Pixel Recurrent Neural Networks, ICML 2016"
    good_at = "small images whose rows follow from those above"
    bad_at = "plain anomalies among rich normal images: score=complexity; anything large: slow"
    Config = PixelRnnConfig

    def __init__(self, config: PixelRnnConfig) -> None:
        super().__init__(config)
        self.network = RowLstmNetwork(
            config.channels,
            config.hidden,
            config.layers,
            config.kernel,
            config.head_width,
            config.levels,
        )

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        rate = self.config.learning_rate
        return {"network": torch.optim.RMSprop(self.network.parameters(), lr=rate)}

    def logits(self, x: Tensor) -> Tensor:
        return self.network(x)
