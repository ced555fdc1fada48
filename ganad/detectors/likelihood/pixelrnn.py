"""PixelRNN with Row LSTM layers (van den Oord, Kalchbrenner, Kavukcuoglu: "Pixel Recurrent Neural
Networks", ICML 2016).

    a 7×7 convolution of mask A, Row LSTM layers with residuals, p(x_i | x_<i) a softmax
    A(x) = −log₂ p(x) per dimension
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ganad.detectors.likelihood.autoregressive import AutoregressiveDetector
from ganad.detectors.likelihood.config import PixelRnnConfig
from ganad.detectors.likelihood.masked import MaskedConv2d, PixelSoftmax, RowLstm


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

    def __init__(self, config: PixelRnnConfig, load_weights: bool = True) -> None:
        super().__init__(config, load_weights)
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
