"""The precision of forward passes."""

from pathlib import Path

import pytest
import torch

from ganad.detectors import configure, create
from ganad.detectors.base import data_type

CPU = torch.device("cpu")


def test_a_named_precision_is_kept_on_any_hardware() -> None:
    assert data_type("float32", CPU) == torch.float32
    assert data_type("bfloat16", CPU) == torch.bfloat16


def test_auto_is_bfloat16_where_the_processor_has_instructions_for_it() -> None:
    facts = Path("/proc/cpuinfo")
    if not facts.exists():
        pytest.skip("this system does not list its processor's instructions")
    flags = set(facts.read_text().split())
    has_them = bool(flags & {"avx512_bf16", "amx_bf16"})
    assert data_type("auto", CPU) == (torch.bfloat16 if has_them else torch.float32)


@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16"])
def test_a_detector_computes_in_it(precision: str) -> None:
    detector = create("ganomaly", configure("ganomaly", {"precision": precision, "width": 8}))
    with detector.autocast():
        found = torch.ones(2, 2) @ torch.ones(2, 2)
    assert found.dtype == data_type(detector.config.precision, CPU)
