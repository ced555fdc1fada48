"""A detector's forward pass as one function of tensors, which a compiler can take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ganad.detectors.base import BatchScores, Detector
from ganad.errors import EngineError


@dataclass(frozen=True)
class Layout:
    """What the outputs are: the score, then these terms, then the maps if there are any."""

    terms: tuple[str, ...]
    maps: bool

    def scores(self, outputs: tuple[Tensor, ...] | list[Tensor]) -> BatchScores:
        """The outputs of the forward pass, named."""
        num = len(self.terms)
        terms = dict(zip(self.terms, outputs[1 : 1 + num], strict=True))
        return BatchScores(outputs[0], terms, outputs[1 + num] if self.maps else None)


class Forward(nn.Module):
    """uint8 images (scoring_batch, c, s, s) -> score, terms and maps, in the order of a Layout."""

    def __init__(self, detector: Detector[Any], maps: bool) -> None:
        super().__init__()
        self.detector, self.maps = detector, maps

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        result = self.detector.score_batch(images, (), self.maps)
        # Copies: a score that is one of its terms would be one output under two names.
        outputs = (result.score.clone(), *(term.clone() for term in result.terms.values()))
        return outputs if result.maps is None else (*outputs, result.maps.clone())


def example(detector: Detector[Any]) -> Tensor:
    """A batch of noise of the shape that the detector scores: uint8."""
    config = detector.config
    shape = (detector.scoring_batch, config.channels, config.input_size, config.input_size)
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def layout_of(detector: Detector[Any], maps: bool) -> Layout:
    """Names the outputs by one eager pass, and makes sure that a compiler can take it.

    Raises EngineError for a detector whose score needs gradients (a search in latent space), or
    noise drawn for each image: a compiled pass has neither.
    """
    batch = example(detector)
    first, second = ([f"{side}{place}" for place in range(len(batch))] for side in "ab")
    with detector.scoring():
        with torch.autograd.graph.saved_tensors_hooks(_refuse_gradients, lambda kept: kept):
            try:
                result = detector.score_batch(batch, first, maps)
            except _NeedsGradientsError:
                raise EngineError(
                    f"{detector.name} follows gradients while it scores, which no engine but "
                    f"eager does: use --engine eager"
                ) from None
        if not torch.equal(result.score, detector.score_batch(batch, second, maps).score):
            raise EngineError(
                f"{detector.name} draws noise for each image while it scores, which no engine but "
                f"eager does: use --engine eager"
            )
    return Layout(tuple(result.terms), result.maps is not None)


class _NeedsGradientsError(Exception):
    pass


def _refuse_gradients(tensor: Tensor) -> Tensor:
    raise _NeedsGradientsError


@contextmanager
def in_float32(detector: Detector[Any]) -> Iterator[None]:
    """The forward pass without autocast: an engine chooses its own instructions for float32."""
    config = detector.config
    detector.config = config.model_copy(update={"precision": "float32"})
    try:
        yield
    finally:
        detector.config = config
