"""Values of options, as typed."""

import pytest

from ganad.errors import ConfigError
from pipelines.cli.options import parse_workers


def test_numbers_of_workers() -> None:
    assert parse_workers("3") == 3
    assert parse_workers("1:4") == (1, 4)


@pytest.mark.parametrize("typed", ["0", "4:1", "1:", ":3", "0:2", "two", "1:2:3", "-1", "²"])
def test_anything_else_is_refused(typed: str) -> None:
    with pytest.raises(ConfigError, match=f"^--workers {typed} is not a number of workers: give"):
        parse_workers(typed)
