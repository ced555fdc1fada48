"""torch.export: the forward pass as a program that torch alone runs (.pt2)."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

SUFFIX = ".pt2"
FACTS = "ganad.json"
"""The entry of the file that says what the model is."""
REFUSED: frozenset[str] = frozenset()
"""Detectors that this format cannot hold."""


def available() -> str | None:
    """None, or how to make it available."""
    return None


def program_of(forward: nn.Module, images: Tensor) -> tuple[ExportedProgram, int | None]:
    """The exported program of a forward pass over uint8 images (n, c, s, s), and its batch: None
    for any number of images, 1 where the operations of a method do not leave it open."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        shapes = ({0: torch.export.Dim("batch", min=1)},)
        try:
            return torch.export.export(forward, (images,), dynamic_shapes=shapes), None
        except Exception:  # of many kinds: a size that is fixed somewhere, or a loop over images
            return torch.export.export(forward, (images[:1],)), 1


def build(
    forward: nn.Module,
    images: Tensor,
    file: Path,
    outputs: tuple[str, ...],
    facts: Mapping[str, Any],
) -> int | None:
    """Write the file; returns its batch."""
    program, batch = program_of(forward, images)
    told = json.dumps({**facts, "outputs": outputs, "batch": batch})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, file, extra_files={FACTS: told})
    return batch


def load(file: Path) -> Callable[[Tensor], list[Tensor]]:
    """The forward pass as another program would read it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = torch.export.load(file).module()

    def forward(images: Tensor) -> list[Tensor]:
        with torch.no_grad():
            return list(run(images))

    return forward
