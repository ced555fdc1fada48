import tempfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ganad.storage import distinct
from ganad.storage.distinct import Distinct


@pytest.fixture
def few_held(monkeypatch):
    monkeypatch.setattr(distinct, "HELD", 1000)


def numbers(num, seed=0):
    return np.random.default_rng(seed).integers(0, 2**64, num, np.uint64)


def test_nothing_is_no_number():
    found = Distinct()
    assert found.count() == 0
    found.add(numbers(0))
    assert found.count() == 0


@pytest.mark.parametrize("piece", [1, 7, 333, 5000])
def test_a_number_is_counted_once_wherever_it_lies(few_held, piece):
    some = numbers(5000)
    found = Distinct()
    for start in range(0, 5000, piece):
        found.add(some[start : start + piece])
    assert found.count() == 5000
    found.add(some[:1500])
    found.add(numbers(10, seed=1))
    assert found.count() == 5010
    found.close()


def test_the_ends_of_the_range_and_neighbours_are_told_apart(few_held):
    found = Distinct()
    edge = np.uint64(1) << np.uint64(56)
    ends = np.array([0, 1, edge - np.uint64(1), edge, 2**64 - 1], np.uint64)
    for _ in range(1000):
        found.add(ends)
    assert found.count() == 5
    found.close()


def test_threads_add(few_held):
    pieces = [numbers(100, seed) for seed in range(100)]
    found = Distinct()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(found.add, pieces + pieces))
    assert found.count() == 10_000
    found.close()


def test_where_no_file_can_be_written_they_are_counted_in_memory(few_held, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
    found = Distinct()
    for seed in (0, 1, 0):
        found.add(numbers(2000, seed))
    assert found.count() == 4000


def test_a_disk_that_fills_up_loses_no_number(few_held):
    found = Distinct()
    found.add(numbers(2000))
    assert found._file is not None
    found._file.close()
    found._file = open("/dev/full", "r+b", buffering=0)  # noqa: SIM115
    with found._file:
        found._runs.clear()
        for seed in (0, 1, 0):
            found.add(numbers(2000, seed))
        assert found.count() == 4000
