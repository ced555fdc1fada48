"""What the registry says of a detector without importing it is what its class says."""

import pytest

from ganad.detectors import DETECTORS, Description, describe, find, find_config
from ganad.errors import ConfigError


@pytest.mark.parametrize("name", DETECTORS)
def test_a_description_is_that_of_the_class(name: str) -> None:
    detector = find(name)
    assert detector.name == name
    assert describe(name) == Description(*(getattr(detector, f) for f in Description._fields))


@pytest.mark.parametrize("name", DETECTORS)
def test_a_config_is_that_of_the_class(name: str) -> None:
    assert find(name).Config is find_config(name)


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    for look in (find, find_config, describe):
        with pytest.raises(ConfigError, match=r"ganomali is not a detector: did you mean ganomaly"):
            look("ganomali")
