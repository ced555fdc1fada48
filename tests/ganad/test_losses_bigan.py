"""Losses and scores of EGBAD and ALAD against values worked out by hand."""

import math

import pytest
import torch

from ganad import losses_bigan as losses

LN2 = math.log(2)


def ce(logit: float, target: int) -> float:
    probability = 1 / (1 + math.exp(-logit))
    return -math.log(probability if target else 1 - probability)


def test_an_undecided_discriminator_costs_two_ln_2() -> None:
    zero = torch.zeros(4)
    assert losses.discriminator(zero, zero).item() == pytest.approx(2 * LN2)
    assert losses.cycle(zero, zero).item() == pytest.approx(2 * LN2)


def test_losses_are_means_of_cross_entropies() -> None:
    real, fake = torch.tensor([2.0, -1.0]), torch.tensor([0.5, -3.0])
    called_real = (ce(0.5, 1) + ce(-3, 1)) / 2
    called_fake = (ce(2, 0) + ce(-1, 0)) / 2
    assert losses.called_real(fake).item() == pytest.approx(called_real, rel=1e-5)
    assert losses.called_fake(real).item() == pytest.approx(called_fake, rel=1e-5)
    assert losses.cycle(real, fake).item() == pytest.approx(called_real + called_fake, rel=1e-5)
    expected = (ce(2, 1) + ce(-1, 1)) / 2 + (ce(0.5, 0) + ce(-3, 0)) / 2
    assert losses.discriminator(real, fake).item() == pytest.approx(expected, rel=1e-5)


def test_a_certain_discriminator_leaves_finite_losses() -> None:
    sure = torch.tensor([1e4])
    assert losses.discriminator(sure, -sure).item() == 0
    assert losses.called_real(-sure).item() == pytest.approx(1e4)


def test_distances_are_sums_per_image() -> None:
    a = torch.tensor([[[1.0, -2.0], [0.0, 0.0]], [[0.0, 0.0], [3.0, 4.0]]])
    b = torch.zeros_like(a)
    assert losses.l1_distance(a, b).tolist() == [3.0, 7.0]
    assert losses.l2_distance(a, b).tolist() == pytest.approx([math.sqrt(5), 5.0])
    assert losses.l1_distance(a.bfloat16(), b).dtype == torch.float64


def test_cross_entropy_is_small_where_the_discriminator_sees_a_real_pair() -> None:
    logits = torch.tensor([-3.0, 0.0, 3.0])
    expected = [ce(-3, 1), LN2, ce(3, 1)]
    assert losses.cross_entropy(logits).tolist() == pytest.approx(expected)


def test_egbad_score_weighs_its_two_parts() -> None:
    score = losses.egbad_score(torch.tensor([10.0, 20.0]), torch.tensor([100.0, 0.0]), 0.9)
    assert score.tolist() == pytest.approx([19.0, 18.0])
