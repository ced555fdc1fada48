"""What a user asks of `ganad train`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TrainRequest:
    """The arguments of a training, as typed."""

    detector: str
    sources: Sequence[str]
    out: str
    values: Mapping[str, Any] = field(default_factory=dict)
    """Config keys; the others keep their defaults."""
    workers: int | tuple[int, int] | None = None
    """Two numbers: the least and the most, of a training that grows and shrinks with the cluster.
    None: one for each GPU; without GPUs one, or for a fit by statistics one for each core."""
    gpu: bool | None = None
    """None: GPUs if the cluster has some."""
    cores: int | None = None
    """Of each worker without a GPU. None: the workers share all cores."""
    drop_abnormal: bool = False
    """Leave out images labelled abnormal; otherwise they are an error."""
    add_to: str | None = None
    """Folder of a fitted model, whose config and images come first: the result is the model of a
    fit to all images together."""
    engine: str = "eager"
    """Of the frozen network, and to be tried for scoring; see pipelines.passes.engines."""

    @property
    def typed_sources(self) -> str:
        """The sources as the user typed them."""
        return " ".join(self.sources)
