"""One forward pass of a frozen network for several detectors that were built on the same one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Taken = TypeVar("Taken")
Take = Callable[[list[Tensor]], Any]
"""A stage's maps (n, d, h, w), one per branch -> what is kept of them."""
Run = Callable[[list[str], Take], dict[str, Any]]
"""The forward pass: levels, and what to take at each -> that, by level."""


class SharedPass:
    """What a network gives for the last batch that it saw, kept for the next extractor that asks
    for the same batch.

    levels: all that the extractors want together, in the order of the network. The pass runs as
    far as the deepest of them, which changes no bit of the others.
    """

    def __init__(self, levels: Sequence[str]) -> None:
        self._levels = list(levels)
        self._takes: list[Take] = []
        """What extractors have asked for so far: from the second batch on, one pass has it all."""
        self._way: Hashable = None
        self._images: Tensor | None = None
        self._found: dict[str, dict[Take, Any]] = {}

    def get(
        self, images: Tensor, way: Hashable, levels: Sequence[str], take: Take, run: Run
    ) -> dict[str, Any]:
        """What run gives for levels and take; taken from the last pass if that saw the same images
        (n, 3, h, w) in the same way. way: all that the result depends on beside the images."""
        if take not in self._takes:
            self._takes.append(take)
            self._images = None
        if not self._is_for(images, way):
            takes = list(self._takes)
            self._found = run(self._levels, lambda maps: {one: one(maps) for one in takes})
            self._images, self._way = images, way
        return {level: self._found[level][take] for level in levels if level in self._found}

    def _is_for(self, images: Tensor, way: Hashable) -> bool:
        before = self._images
        if before is None or way != self._way or before.device != images.device:
            return False
        return before.dtype == images.dtype and torch.equal(before, images)


class Sharing(nn.Module):
    """A frozen network whose pass may be shared with others of the same weights."""

    dimensions: dict[str, int]
    """Level -> width, in the order of the network."""
    shared: SharedPass | None = None

    @property
    @abstractmethod
    def digest(self) -> str:
        """That of the network's weights."""

    @property
    @abstractmethod
    def all_levels(self) -> list[str]:
        """Those that the network has, in its order."""


def share(networks: Sequence[Sharing]) -> list[list[int]]:
    """Let networks of the same weights share their passes; returns the positions of each group of
    two or more."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for position, network in enumerate(networks):
        network.shared = None
        groups.setdefault((network.digest, *network.all_levels), []).append(position)
    found = [group for group in groups.values() if len(group) > 1]
    for group in found:
        wanted = {level for position in group for level in networks[position].dimensions}
        levels = [level for level in networks[group[0]].all_levels if level in wanted]
        together = SharedPass(levels)
        for position in group:
            networks[position].shared = together
    return found
