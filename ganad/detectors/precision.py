"""Which precision a processor or GPU computes fast in."""

from __future__ import annotations

from functools import cache

import torch

from ganad.detectors.config import Precision


def data_type(precision: Precision, device: torch.device) -> torch.dtype:
    """The type that forward passes compute in on the device."""
    if precision == "auto":
        return torch.bfloat16 if has_fast_bfloat16(device.type) else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


@cache
def has_fast_bfloat16(device_type: str) -> bool:
    """Whether bfloat16 is in the hardware; emulated, it takes ten to eighty times float32."""
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    instructions = torch.cpu.get_capabilities()
    return bool(instructions.get("avx512_bf16") or instructions.get("amx_bf16"))
