"""Values of options, as typed."""

import pytest

from ganad.errors import ConfigError
from pipelines.cli.options import parse_workers, split_models


def test_numbers_of_workers() -> None:
    assert parse_workers("3") == 3
    assert parse_workers("1:4") == (1, 4)


@pytest.mark.parametrize("typed", ["0", "4:1", "1:", ":3", "0:2", "two", "1:2:3", "-1", "²"])
def test_anything_else_is_refused(typed: str) -> None:
    with pytest.raises(ConfigError, match=f"^--workers {typed} is not a number of workers: give"):
        parse_workers(typed)


def test_models_come_before_the_source() -> None:
    assert split_models(["a", "b", "c/*.tar"]) == (["a", "b"], "c/*.tar")
    with pytest.raises(ConfigError, match="^model is only one of MODEL and SOURCE"):
        split_models(["model"])


@pytest.mark.parametrize("name", ["s-001.tar", "x.PNG", "part.parquet"])
def test_a_glob_that_the_shell_expanded_is_to_be_quoted(name: str) -> None:
    """It said that the first shard was no saved model."""
    ending = name.rpartition(".")[2]
    with pytest.raises(
        ConfigError, match=rf"shards/{name} is a file, not a saved model.*/\*\.{ending}'"
    ):
        split_models(["model", f"shards/{name}", f"shards/2{name}"])
