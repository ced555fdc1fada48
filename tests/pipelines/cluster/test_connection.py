"""How a job's workers share a cluster."""

import pytest

from ganad.errors import CapacityError
from pipelines.cluster.connection import Resources, allocate, cores_each


@pytest.mark.parametrize(
    ("nodes", "workers", "each"),
    [
        ([16], 1, 16),
        ([16], 3, 5),
        ([1, 1], 1, 1),  # no worker spans two nodes
        ([16, 16], 3, 8),
        ([0, 16, 4], 1, 16),
        ([0, 16, 4], 4, 4),
        ([2], 4, 1),
        ([], 2, 1),
    ],
)
def test_workers_have_the_most_cores_that_fit(nodes: list[int], workers: int, each: int) -> None:
    assert cores_each(nodes, workers) == each


@pytest.mark.usefixtures("ray_cluster")
def test_shares_of_two_cores() -> None:
    assert allocate(None, None) == Resources(2, 0, 1)
    assert allocate(None, None, workers_without_gpu=1) == Resources(1, 0, 2)
    with pytest.raises(CapacityError, match=r"^--workers 3 needs 3 processor cores .* use --work"):
        allocate(3, False)
    with pytest.raises(CapacityError, match="^--gpu needs a GPU"):
        allocate(None, True)


@pytest.mark.usefixtures("ray_cluster")
def test_a_training_that_grows_needs_only_its_least_number() -> None:
    assert allocate((1, 4), None) == Resources(1, 0, 2, elastic=(1, 4))
    assert allocate((2, 4), False) == Resources(2, 0, 1, elastic=(2, 4))
    with pytest.raises(CapacityError, match="^--workers 3 needs 3 processor cores"):
        allocate((3, 4), None)
