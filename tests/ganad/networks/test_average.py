"""The moving average that EGBAD and ALAD score with."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from ganad.networks.average import Average


def network() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(spectral_norm(nn.Conv2d(1, 2, 3)), nn.BatchNorm2d(2))


def test_weights_and_statistics_move_by_the_decay() -> None:
    raw: Any = nn.BatchNorm2d(1)
    average = Average(raw, 0.9)
    nn.init.constant_(raw.weight, 2.0)
    nn.init.constant_(raw.running_mean, 10.0)
    average.update(raw, 1000)
    average.update(raw, 1001)
    # 1·0.9² + 2·(1 − 0.9²), and 10·(1 − 0.9²)
    assert average.state_dict()["network.weight"].item() == pytest.approx(1.19)
    assert average.state_dict()["network.running_mean"].item() == pytest.approx(1.9)


@pytest.mark.parametrize(("number", "decay"), [(0, 0.1), (8, 0.5), (8990, 0.999), (10**6, 0.999)])
def test_the_first_steps_forget_faster(number: int, decay: float) -> None:
    raw = nn.Linear(1, 1)
    nn.init.zeros_(raw.weight)
    average = Average(raw, 0.999)
    nn.init.ones_(raw.weight)
    average.update(raw, number)
    assert average.state_dict()["network.weight"].item() == pytest.approx(1 - decay, rel=1e-3)


def test_unit_vectors_and_counters_are_copied() -> None:
    raw = network()
    average = Average(raw, 0.999)
    for _ in range(3):
        raw(torch.rand(4, 1, 8, 8))
        nn.init.normal_(raw[0].parametrizations.weight.original)
    average.update(raw, 10**6)
    for name, buffer in average.network.named_buffers():
        if "running" not in name:
            assert torch.equal(buffer, raw.get_buffer(name)), name


def test_it_is_part_of_the_state_and_never_trains() -> None:
    raw = network()
    module: Any = nn.ModuleDict({"raw": raw, "average": Average(raw, 0.999)}).train()
    assert module["raw"].training
    assert not any(part.training for part in module["average"].modules())
    assert not any(weight.requires_grad for weight in module["average"].parameters())
    prefix = "average.network."
    kept = [name.removeprefix(prefix) for name in module.state_dict() if name.startswith(prefix)]
    assert kept == list(raw.state_dict())


def test_the_network_itself_is_left_alone() -> None:
    raw = network()
    before = {name: value.clone() for name, value in raw.state_dict().items()}
    average = Average(raw, 0.5)
    for parameter in average.parameters():
        nn.init.zeros_(parameter)
    average.update(raw, 100)
    for name, value in raw.state_dict().items():
        assert torch.equal(value, before[name]), name
