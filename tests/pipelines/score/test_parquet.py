"""Folders, tars and Parquet files scored in one run: the same picture has the same score."""

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ganad.images.decode import Preprocessing
from ganad.scores.refetch import fetch
from ganad.scores.table import ScoreTable
from pipelines.score.run import score

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.mark.parametrize("place", ["local", "s3"])
def test_a_picture_scores_alike_wherever_it_lies(
    place: str, model: str, image_folder: Path, tmp_path: Path, s3: Any
) -> None:
    root = tmp_path if place == "local" else s3.root / "mixed"
    archive = root / "archive"
    (archive / "loose").mkdir(parents=True)
    pictures = {path.name: path.read_bytes() for path in (image_folder / "test/crack").iterdir()}
    with tarfile.open(archive / "shard.tar", "w") as tar:
        for name, data in pictures.items():
            (archive / "loose" / name).write_bytes(data)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    cells = [{"bytes": data, "path": name} for name, data in pictures.items()]
    cells += [{"bytes": None, "path": "null"}, {"bytes": b"<html>", "path": "page"}]
    pq.write_table(pa.table({"image": cells}), archive / "x.parquet", row_group_size=3)
    source = f"{archive}/*" if place == "local" else s3.url("mixed/archive/*")
    table = str(tmp_path / "table")
    (run,) = score([model], [source], table, gpu=False).values()
    assert run.failure_kinds == {"not an image": 1, "the row holds no bytes": 1}
    assert (run.counts["in"], run.counts["scored"]) == (3 * 8 + 2, 3 * 8)
    rows = ScoreTable(table).query("SELECT * FROM scores ORDER BY name").to_pylist()
    scores: dict[str, set[float]] = {}
    for row in rows:
        if row["error"] is None:
            name = row["name"].replace("#", "/").rpartition("/")[2]
            scores.setdefault(name, set()).add(row["score"])
    assert scores.keys() == pictures.keys()
    assert all(len(found) == 1 for found in scores.values())
    # What a report shows is found again in each of the three.
    some = [row for row in rows if row["name"].endswith("000.png")]
    images = [one.image for one in fetch(ScoreTable(table), some, Preprocessing(image_size=8))]
    assert len(images) == 3
    assert all(image is not None and np.array_equal(image, images[0]) for image in images)
