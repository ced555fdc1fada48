"""Work done one item ahead."""

import threading
from contextlib import closing

import pytest

from ganad.training.prefetch import one_ahead


def threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith("ganad-ahead")]


def test_the_next_item_is_made_while_the_last_is_in_use_and_no_more() -> None:
    begun = [threading.Event() for _ in range(4)]

    def make(item: int) -> int:
        begun[item].set()
        return item * item

    results = one_ahead(range(4), make)
    assert next(results) == 0
    assert begun[1].wait(30)  # though nobody has asked for it
    assert not begun[2].is_set()
    assert list(results) == [1, 4, 9]
    assert not threads()


def test_what_is_raised_comes_in_its_turn_and_ends_the_thread() -> None:
    calls = []

    def make(item: int) -> int:
        calls.append(item)
        if item == 1:
            raise ValueError("the second")
        return item

    results = one_ahead(range(9), make)
    assert next(results) == 0
    with pytest.raises(ValueError, match="^the second$"):
        next(results)
    assert not threads()
    assert len(calls) <= 3


def test_a_consumer_that_leaves_early_leaves_no_thread() -> None:
    with closing(one_ahead(range(9), str)) as results:
        assert next(results) == "0"
        assert len(threads()) == 1
    assert not threads()
    assert list(one_ahead([], int)) == []
