"""Terms by place, and how they make a score."""

import numpy as np
import pytest
import torch

from ganad.detectors.places import TermScale, cosine, squared, worst


def test_a_term_is_the_mean_of_the_worst_places() -> None:
    places = torch.arange(200.0).reshape(2, 10, 10)
    assert worst(places, 0.02).tolist() == [(98 + 99) / 2, (198 + 199) / 2]
    assert worst(places, 1e-6).tolist() == [99, 199]  # one at least
    assert worst(places, 1.0).tolist() == [49.5, 149.5]


def test_terms_of_vectors_by_place() -> None:
    a = torch.tensor([[3.0, 4.0]]).reshape(1, 2, 1, 1)
    b = torch.tensor([[4.0, 3.0]]).reshape(1, 2, 1, 1)
    assert squared(a, b).tolist() == [[[1.0]]]
    assert cosine(a, b).item() == pytest.approx(1 - 24 / 25)
    assert cosine(a, 7 * a).item() == pytest.approx(0, abs=1e-6)
    assert cosine(a, torch.zeros_like(a)).item() == 1


def scale(*counted: str) -> TermScale:
    made = TermScale(["a", "b"], counted)
    made.fit({"a": np.array([1.0, 3.0]), "b": np.array([10.0, 30.0])})
    return made


def test_the_score_sums_what_is_counted_by_its_spread_over_normal_images() -> None:
    places = {"a": torch.full((1, 2, 2), 5.0), "b": torch.full((1, 1, 1), 50.0)}
    both = scale("a", "b").score(places, 1.0, None)
    assert both.score.tolist() == [(5 - 2) / 1 + (50 - 20) / 10]
    assert {name: term.item() for name, term in both.terms.items()} == {"a": 5.0, "b": 50.0}
    assert scale("b").score(places, 1.0, None).score.tolist() == [3.0]
    assert both.maps is None


def test_a_map_is_the_same_sum_by_place() -> None:
    by_place = torch.tensor([[2.0, 2.0], [2.0, 12.0]])[None]
    places = {"a": by_place, "b": torch.full((1, 1, 1), 20.0)}
    found = scale("a", "b").score(places, 0.25, 8)
    assert found.maps is not None
    assert found.maps.shape == (1, 8, 8)
    assert found.maps[0, -1, -1].item() == pytest.approx(found.score.item())
    assert found.maps[0, 0, 0].item() == pytest.approx(0)


def test_a_map_may_be_of_other_terms_than_the_score() -> None:
    made = TermScale(["a", "b"], ["a"], mapped=["b"])
    places = {"a": torch.full((1, 1, 1), 2.0), "b": torch.full((1, 4, 4), 3.0)}
    found = made.score(places, 1.0, 8)
    assert found.maps is not None
    assert found.score.item() == 2.0
    assert found.maps.unique().tolist() == [3.0]


def test_a_term_that_does_not_vary_is_not_blown_up() -> None:
    made = TermScale(["a"], ["a"])
    made.fit({"a": np.full(3, 2.0)})
    assert made.score({"a": torch.full((1, 1, 1), 2.5)}, 1.0, None).score.item() == 0.5


def test_terms_that_are_not_fitted_yet_are_taken_as_they_are() -> None:
    made = TermScale(["a", "b"], ["a", "b"])
    places = {"a": torch.full((1, 1, 1), 2.0), "b": torch.full((1, 1, 1), 3.0)}
    assert made.score(places, 1.0, None).score.item() == 5.0
