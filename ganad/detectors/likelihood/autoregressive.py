"""Base of PixelCNN and PixelRNN: p(x) = Π p(x_i | x_<i), trained and scored by its logarithm.

L = A(x) = −(1/d) Σ_i log₂ p(x_i | x_<i),  d = channels · height · width
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TypeVar

from torch import Tensor

from ganad import losses
from ganad.detectors.base import BatchScores
from ganad.detectors.gradient import GradientDetector, Step
from ganad.detectors.likelihood.config import AutoregressiveConfig

ConfigT = TypeVar("ConfigT", bound=AutoregressiveConfig)


class AutoregressiveDetector(GradientDetector[ConfigT]):
    """Subclasses predict the logits of every value from the values before it."""

    scoring_batch = 8  # 256 logits for every value are large

    @abstractmethod
    def logits(self, x: Tensor) -> Tensor:
        """Images in [-1, 1], n×c×h×w -> n×c×levels×h×w, each value from those before it."""

    def bits(self, images: Tensor) -> Tensor:
        """Prepared images -> −log₂ p(x_i | x_<i), float32 n×c×h×w."""
        q = losses.quantise(images, self.config.levels)
        return losses.bits(self.logits(losses.dequantise(q, self.config.levels)), q)

    def training_step(self, images: Tensor, step: Step) -> dict[str, Tensor]:
        loss = self.bits(images).mean()
        step.update("network", loss)
        return {"bits_per_dimension": loss.detach()}

    def reconstruct(self, images: Tensor) -> Tensor:
        """The expectation of each pixel, given the true pixels before it."""
        q = losses.quantise(images, self.config.levels)
        return losses.expectation(self.logits(losses.dequantise(q, self.config.levels)))

    def score_pixels(self, x: Tensor, ids: Sequence[str], maps: bool) -> BatchScores:
        with self.autocast():
            bits = self.bits(x)
        score = bits.double().flatten(1).mean(1)
        terms = {"bits_per_dimension": score}
        if self.config.score == "complexity":
            png_bits = losses.compressed_bits(losses.quantise(x, self.config.levels))
            terms["png_bits_per_dimension"] = png_bits
            score = score - png_bits
        return BatchScores(score, terms, bits.mean(1) if maps else None)
