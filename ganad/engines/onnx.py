"""ONNX: the forward pass for ONNX Runtime and everything else that reads it. Extra: ganad[onnx]."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ganad.engines.program import program_of

SUFFIX = ".onnx"
INPUT = "images"
FACTS = "ganad"
"""The entry of the file's metadata that says what the model is."""
REFUSED = frozenset({"alad", "dictionary", "patchcore"})
"""Detectors with operations that the conversion or ONNX Runtime lacks."""


def available() -> str | None:
    """None, or how to make it available."""
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        return "pip install 'ganad[onnx]'"
    return None


def build(
    forward: nn.Module,
    images: Tensor,
    file: Path,
    outputs: tuple[str, ...],
    facts: Mapping[str, Any],
) -> int | None:
    """Write the file; returns its batch."""
    program, batch = program_of(forward, images)
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)  # it tells of operations of torchvision, which none uses
        try:
            made = torch.onnx.export(
                program,
                dynamo=True,
                input_names=[INPUT],
                output_names=list(outputs),
                verbose=False,
            )
        finally:
            logger.setLevel(level)
    assert made is not None
    told = json.dumps({**facts, "outputs": outputs, "batch": batch})
    made.model.metadata_props[FACTS] = told
    made.save(file)
    return batch


def load(file: Path) -> Callable[[Tensor], list[Tensor]]:
    """The forward pass as another program would read it, on the processor."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def forward(images: Tensor) -> list[Tensor]:
        return [torch.from_numpy(one) for one in session.run(None, {INPUT: images.numpy()})]

    return forward
