"""What goes wrong in an actor comes out of the graph as what it is."""

from pathlib import Path

import pytest

from ganad.errors import ArchiveError, Outage
from pipelines.cluster.connection import Resources
from pipelines.passes.stream import Batch, stream
from pipelines.passes.units import Unit

UNITS = [Unit(number, "nowhere.parquet", 0, 1) for number in range(3)]
ONE = Resources(1, 0, 1)


class Working:
    """Fails as it is told."""

    def __init__(self, when: str) -> None:
        self.when = when
        if when == "at first":
            raise ArchiveError("s3://bucket/model: cannot be reached; check the network")

    def __call__(self, batch: Batch) -> Batch:
        if self.when == "at work" and batch["number"][0] == 1:
            raise Outage("/table: No space left on device; check the storage")
        return {"number": batch["number"]}


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(
    ("when", "kind", "text"),
    [
        ("at first", ArchiveError, r"^s3://bucket/model: cannot be reached"),
        ("at work", Outage, r"^/table: No space left on device"),
    ],
)
def test_an_error_of_ours_stays_one(when: str, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        list(stream(UNITS, Working, {"when": when}, [], ONE))


@pytest.mark.usefixtures("ray_cluster")
def test_without_errors_every_unit_comes_once(tmp_path: Path) -> None:
    rows = list(stream(UNITS, Working, {"when": "never"}, [], ONE))
    assert sorted(row["number"] for row in rows) == [0, 1, 2]
