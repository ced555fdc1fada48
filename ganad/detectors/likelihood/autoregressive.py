"""What PixelCNN and PixelRNN share: p(x) = Π p(x_i | x_<i), trained and scored by its logarithm.

L = A(x) = −(1/d) Σ_i log₂ p(x_i | x_<i),  d = channels · height · width
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from torch import Tensor

from ganad import losses_likelihood as losses
from ganad.detectors.base import GradientDetector, Scores, Step
from ganad.detectors.likelihood.config import AutoregressiveConfig

ConfigT = TypeVar("ConfigT", bound=AutoregressiveConfig)


class AutoregressiveDetector(GradientDetector[ConfigT]):
    """Subclasses give the logits of every value from the values before it."""

    scoring_batch = 8  # 256 logits for every value are large

    @abstractmethod
    def logits(self, x: Tensor) -> Tensor:
        """Images in [-1, 1], n×c×h×w -> n×c×levels×h×w; at a value, of the values before it."""

    def bits(self, images: Tensor) -> Tensor:
        """Prepared images -> −log₂ p(x_i | x_<i), float32 n×c×h×w."""
        q = losses.quantise(images, self.config.levels)
        return losses.bits(self.logits(losses.dequantise(q, self.config.levels)), q)

    def training_step(self, images: Tensor, step: Step) -> dict[str, Tensor]:
        loss = self.bits(images).mean()
        step.update("network", loss)
        return {"bits_per_dimension": loss.detach()}

    def reconstruct(self, images: Tensor) -> Tensor:
        """What the model expects of each pixel, given the true pixels before it."""
        q = losses.quantise(images, self.config.levels)
        return losses.expectation(self.logits(losses.dequantise(q, self.config.levels)))

    def score_batch(self, images: Tensor, ids: Sequence[str], maps: bool) -> Scores:
        x = self.prepare(images)
        with self.autocast():
            bits = self.bits(x)
        per_image = bits.double().flatten(1).mean(1).cpu().numpy()
        terms = {"bits_per_dimension": per_image}
        score = per_image
        if self.config.score == "complexity":
            q = losses.quantise(x, self.config.levels).cpu().numpy().astype(np.uint8)
            terms["png_bits_per_dimension"] = losses.compressed_bits(q)
            score = per_image - terms["png_bits_per_dimension"]
        return Scores(score, terms, bits.mean(1).cpu().numpy() if maps else None)
