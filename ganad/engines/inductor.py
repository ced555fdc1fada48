"""TorchInductor: the forward pass compiled ahead of time with a C++ compiler."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ganad.engines.forward import Forward

FILE = "model.pt2"


def available() -> str | None:
    """None, or how to make it available."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        return "install a C++ compiler, such as g++"
    return None


def version() -> str:
    return f"torch {torch.__version__}"


def build(forward: Forward, batch: Tensor, folder: Path) -> None:
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

    run = aoti_load_package(str(folder / FILE))

    def forward(images: Tensor) -> list[Tensor]:
        with torch.no_grad():
            return list(run(images.contiguous()))

    return forward
