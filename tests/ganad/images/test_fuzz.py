"""Damaged images of every format: a score or an error for each, in time and in memory."""

import pytest

from tests.ganad.images import fuzz


def test_no_damaged_file_crashes_hangs_or_fills_the_decoder_or_changes_in_silence() -> None:
    tallies = fuzz.run(fuzz.sources([]), 800, seed=1)
    assert set(tallies) == set(fuzz.FORMATS.values())
    for name, tally in tallies.items():
        assert tally.is_good(), f"{name}:\n{fuzz.table(tallies)}"
        assert tally.outcomes["an error"] > 0
        assert tally.outcomes["decoded"] > 0


def test_the_same_seed_makes_the_same_files() -> None:
    originals = fuzz.sources([])
    assert list(fuzz.mutants(originals, 50, 3)) == list(fuzz.mutants(originals, 50, 3))


@pytest.mark.parametrize("key", ["crashed", "timed out"])
def test_a_fault_is_counted_as_one(key: str) -> None:
    tally = fuzz.Tally()
    assert tally.is_good()
    tally.outcomes[key] += 1
    assert not tally.is_good()
