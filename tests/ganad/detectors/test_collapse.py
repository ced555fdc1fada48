"""The guards that methods share."""

from typing import Any

import pytest
import torch
from torch import nn

from ganad.detectors.collapse import report_if_useless, reset_if_collapsed
from ganad.detectors.gradient import Step


def step_at(number: int, events: list[str], resets: list[str]) -> Step:
    return Step(
        update=lambda name, loss: None,
        number=number,
        total=10,
        mean=lambda value: value.item(),
        reset_optimizer=resets.append,
        event=events.append,
    )


def redraw(loss: float) -> tuple[nn.Linear, list[str], list[str], torch.Tensor]:
    network, num_resets = nn.Linear(3, 1), torch.zeros((), dtype=torch.long)
    nn.init.ones_(network.weight)
    events: list[str] = []
    resets: list[str] = []
    detector: Any = nn.Module()
    detector.name, detector.config = "a", type("Config", (), {"seed": 5})
    step = step_at(3, events, resets)
    detector.num_resets = num_resets
    reset_if_collapsed(
        detector, network, torch.tensor(loss), step, lambda old: old.reset_parameters(), "d"
    )
    return network, events, resets, num_resets


def test_a_vanished_loss_draws_the_network_anew_from_seed_and_step() -> None:
    network, events, resets, num_resets = redraw(1e-6)
    torch.manual_seed(99)  # not the caller's random state
    again, *_ = redraw(1e-6)
    assert torch.equal(network.weight, again.weight)
    assert network.weight.abs().max() < 0.6  # 1/√3 is the bound of a linear layer's first weights
    assert resets == ["d"]
    assert num_resets == 1
    assert events == ["d collapsed (loss < 1e-05) and was reinitialized"]


@pytest.mark.parametrize("loss", [1.0, 1e-4, float("nan"), float("inf")])
def test_other_losses_leave_it_alone(loss: float) -> None:
    network, events, resets, num_resets = redraw(loss)
    assert torch.all(network.weight == 1)
    assert not events
    assert not resets
    assert num_resets == 0


def test_reconstructions_are_judged_at_the_last_step_against_the_mean_image() -> None:
    images = torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1)  # 1 from their mean image
    events: list[str] = []
    report_if_useless(images, images * 0.5, step_at(9, events, []))
    report_if_useless(images, -images, step_at(8, events, []))
    assert not events
    report_if_useless(images, -images, step_at(9, events, []))
    assert events[0].startswith("reconstructions are further from the images than their mean")
