"""Functions of the class-conditional GANs against values computed by hand."""

import math

import pytest
import torch

from ganad import losses_conditional as losses


def test_of_class_takes_each_image_s_own_column() -> None:
    logits = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert losses.of_class(logits, torch.tensor([1, 0])).tolist() == [2.0, 3.0]


def test_classification_adds_real_and_fake() -> None:
    # P(y|x) = 3/4 for the real image, 1/2 for the fake one.
    real, fake = torch.tensor([[math.log(3), 0.0]]), torch.zeros(1, 2)
    found = losses.classification(real, fake, torch.tensor([0]))
    assert found.item() == pytest.approx(-math.log(3 / 4) - math.log(1 / 2))


def test_source_surprise_is_that_of_the_likeliest_class() -> None:
    real = torch.tensor([[-5.0, math.log(3)]])  # D = 3/4 for the second class
    assert losses.source_surprise(real).item() == pytest.approx(-math.log(3 / 4))


def test_source_surprise_does_not_overflow() -> None:
    assert losses.source_surprise(torch.tensor([[-1000.0]])).item() == pytest.approx(1000.0)


def test_class_surprise_is_largest_where_the_classes_are_even() -> None:
    logits = torch.tensor([[0.0, 0.0], [math.log(9), 0.0]])
    assert losses.class_surprise(logits).tolist() == pytest.approx([math.log(2), -math.log(0.9)])


def test_class_surprise_of_one_class_is_nothing() -> None:
    assert losses.class_surprise(torch.tensor([[7.0]])).item() == 0


def test_joint_surprise_takes_both_terms_of_one_class() -> None:
    # D(x, c) = 1/4, 3/4 and P(c|x) = 3/4, 1/4: both products are 3/16.
    real = torch.tensor([[-math.log(3), math.log(3)]])
    classes = torch.tensor([[math.log(3), 0.0]])
    assert losses.joint_surprise(real, classes).item() == pytest.approx(-math.log(3 / 16))
