"""OpenVINO: Intel's engine for processors, which needs no compiler. Extra: ganad[openvino]."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

FILE = "model.xml"
WORTH_S = 60.0
"""Seconds of the eager pass below which it is not worth while to compile."""


def available() -> str | None:
    """None, or how to make it available."""
    try:
        import openvino  # noqa: F401
    except ImportError:
        return "pip install 'ganad[openvino]'"
    return None


def version() -> str:
    import openvino

    return f"openvino {openvino.get_version().split('-')[0]}"


def build(forward: nn.Module, batch: Tensor, folder: Path) -> None:
    """Convert the forward pass and write it to the folder.

    A trace is the quicker way; an exported program knows operations that a trace does not.
    """
    import openvino

    with warnings.catch_warnings(), torch.no_grad():
        # A trace warns of every size that it takes as fixed; here all sizes are fixed.
        warnings.simplefilter("ignore")
        try:
            model = openvino.convert_model(forward, example_input=batch)
        except openvino.frontend.OpConversionFailure:
            program = torch.export.export(forward, (batch,))
            model = openvino.convert_model(program)
        model.reshape({model.inputs[0]: list(batch.shape)})
        openvino.save_model(model, folder / FILE, compress_to_fp16=False)


def load(folder: Path, num_threads: int) -> Callable[[Tensor], list[Tensor]]:
    """The forward pass on so many threads of the processor, in float32."""
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(folder / FILE),
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": num_threads,
            "NUM_STREAMS": 1,
            # Threads that wait actively would take the processor from those that decode.
            "ENABLE_CPU_PINNING": False,
        },
    )
    request = compiled.create_infer_request()
    outputs = compiled.outputs

    def run(images: Tensor) -> list[Tensor]:
        result = request.infer({0: np.ascontiguousarray(images.numpy())})
        return [torch.from_numpy(np.array(result[output])) for output in outputs]

    return run
