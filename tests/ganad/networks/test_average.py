"""The moving average that EGBAD and ALAD score with."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from ganad.networks.average import Average


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(spectral_norm(nn.Conv2d(1, 2, 3)), nn.BatchNorm2d(2))


def test_weights_and_statistics_move_by_the_decay() -> None:
    raw = nn.BatchNorm2d(1)
    average = Average(raw, 0.9)
    with torch.no_grad():
        raw.weight.fill_(2.0)
        raw.running_mean.fill_(10.0)  # type: ignore[union-attr]
    average.update(raw, 1000)
    average.update(raw, 1001)
    # 1·0.9² + 2·(1 − 0.9²), and 10·(1 − 0.9²)
    assert average.network.weight.item() == pytest.approx(1.19)
    assert average.network.running_mean.item() == pytest.approx(1.9)


@pytest.mark.parametrize(("number", "decay"), [(0, 0.1), (8, 0.5), (8990, 0.999), (10**6, 0.999)])
def test_the_first_steps_forget_faster(number: int, decay: float) -> None:
    raw = nn.Linear(1, 1)
    average = Average(raw, 0.999)
    nn.init.zeros_(average.network.weight)
    nn.init.ones_(raw.weight)
    average.update(raw, number)
    assert average.network.weight.item() == pytest.approx(1 - decay, rel=1e-3)


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
    module = nn.Module()
    module.raw = network()
    module.average = Average(module.raw, 0.999)  # type: ignore[arg-type]
    module.train()
    assert not any(part.training for part in module.average.modules())
    assert not any(weight.requires_grad for weight in module.average.parameters())
    raw = {name for name in module.state_dict() if name.startswith("raw.")}
    kept = {name for name in module.state_dict() if name.startswith("average.network.")}
    assert {name.removeprefix("raw.") for name in raw} == {
        name.removeprefix("average.network.") for name in kept
    }


def test_the_network_itself_is_left_alone() -> None:
    raw = network()
    before = {name: value.clone() for name, value in raw.state_dict().items()}
    average = Average(raw, 0.5)
    nn.init.zeros_(average.network[1].weight)  # type: ignore[index]
    average.update(raw, 100)
    for name, value in raw.state_dict().items():
        assert torch.equal(value, before[name]), name
