"""TorchInductor: the forward pass compiled ahead of time with a C++ compiler."""

from __future__ import annotations

import logging
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

FILE = "model.pt2"
WORTH_S = 600.0
"""Seconds of the eager pass below which it is not worth while to compile."""


def available() -> str | None:
    """None, or how to make it available."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        return "install a C++ compiler, such as g++"
    return None


def version() -> str:
    return f"torch {torch.__version__}"


def build(forward: nn.Module, batch: Tensor, folder: Path) -> None:
    """Export and compile the forward pass; batch norms are folded and weights laid out."""
    from torch._inductor import aoti_compile_and_package

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.export.export(forward, (batch,))
        aoti_compile_and_package(
            program, package_path=str(folder / FILE), inductor_configs={"freezing": True}
        )


def load(folder: Path, num_threads: int) -> Callable[[Tensor], list[Tensor]]:
    """The forward pass on torch's threads, whose number the process has set."""
    from torch._inductor import aoti_load_package

    # It warns where a machine has CUDA's tools and no GPU.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    run = aoti_load_package(str(folder / FILE))

    def forward(images: Tensor) -> list[Tensor]:
        with torch.no_grad():
            return list(run(images.contiguous()))

    return forward
