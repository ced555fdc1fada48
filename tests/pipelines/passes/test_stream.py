"""What goes wrong in a worker comes out of the graph as the error that it is."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ganad.archive.rows import SCHEMA
from ganad.errors import ArchiveError, Outage
from ganad.images.decode import Preprocessing
from pipelines.cluster.connection import Resources
from pipelines.passes.stream import stream
from pipelines.passes.units import Unit
from pipelines.passes.worker import DecodedUnit, UnitWorker

ONE = Resources(1, 0, 1)


@pytest.fixture
def units(tmp_path: Path) -> list[Unit]:
    """Three images that are not there."""
    row = dict.fromkeys(SCHEMA.names) | {"uri": str(tmp_path / "lost.png"), "image_id": "lost"}
    uri = str(tmp_path / "rows.parquet")
    pq.write_table(pa.Table.from_pylist([row] * 3, schema=SCHEMA), uri)
    return [Unit(number, uri, number, 1) for number in range(3)]


class Failing(UnitWorker):
    """Fails when it is told to."""

    def setup(self, when: str) -> None:
        self.when = when
        self.preprocessings = [Preprocessing(image_size=8, channels=1)]
        if when == "at first":
            raise ArchiveError("s3://bucket/model: cannot be reached; check the network")

    def work(self, images: DecodedUnit) -> dict[str, Any]:
        if self.when == "at work" and images.unit.number == 1:
            raise Outage("/table: No space left on device; check the storage")
        return {"errors": len(images.errors)}


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(
    ("when", "kind", "text"),
    [
        ("at first", ArchiveError, r"^s3://bucket/model: cannot be reached"),
        ("at work", Outage, r"^/table: No space left on device"),
    ],
)
def test_an_error_of_ours_stays_one(
    when: str, kind: type[Exception], text: str, units: list[Unit]
) -> None:
    with pytest.raises(kind, match=text):
        list(stream(units, Failing, {"when": when}, [], ONE))


@pytest.mark.usefixtures("ray_cluster")
def test_without_errors_every_unit_comes_once(units: list[Unit]) -> None:
    rows = list(stream(units, Failing, {"when": "never"}, [], ONE))
    assert sorted(row["number"] for row in rows) == [0, 1, 2]
    assert all(row["num"] == row["errors"] == 1 for row in rows)
