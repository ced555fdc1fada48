"""Regions: found, placed in the image's own pixels, read by SQL, and merged with their scores."""

import io
import re
from pathlib import Path

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from ganad.errors import QueryError, TableError
from ganad.images.decode import Preprocessing, decode
from ganad.model import Model
from ganad.scores import regions
from ganad.scores.compact import compact
from ganad.scores.files import list_files
from ganad.scores.parts import write_schema_mark
from ganad.scores.rows import CARRIED, rows_and_regions, score_rows
from ganad.scores.table import ScoreTable
from ganad.storage import files as storage
from tests.ganad.detectors.small import small
from tests.ganad.scores.make_table import (
    MODEL,
    OTHER,
    killed_at_removal,
    make_rows,
    small_table,
    write_table,
)

README = Path(regions.__file__).with_name("README.md").read_text()


def test_regions_by_hand() -> None:
    heat = np.zeros((4, 6), np.float32)
    heat[0, 0], heat[1, 1] = 2, 5  # they touch at a corner
    heat[3, 3:6] = 2, 3, 2
    heat[2, 2] = 1  # not above the level
    first, second = regions.find(heat, 1.0, width=60, height=20)
    assert first == {
        "x0": 0,
        "y0": 0,
        "x1": 20,
        "y1": 10,
        "area": 100,
        "peak": 5.0,
        "peak_x": 15,
        "peak_y": 7,
    }
    assert second == {
        "x0": 30,
        "y0": 15,
        "x1": 60,
        "y1": 20,
        "area": 150,
        "peak": 3.0,
        "peak_x": 45,
        "peak_y": 17,
    }
    assert regions.find(heat, 5.0, 60, 20) == []


def test_boxes_of_a_small_image_lie_in_it() -> None:
    heat = np.ones((64, 64), np.float32)
    (whole,) = regions.find(heat, 0.0, width=3, height=200)
    assert [whole[key] for key in ("x0", "y0", "x1", "y1")] == [0, 0, 3, 200]
    assert whole["area"] == 600
    heat[:, :63] = 0
    heat[10:] = 0
    (corner,) = regions.find(heat, 0.0, width=3, height=200)
    assert (corner["x0"], corner["x1"], corner["peak_x"]) == (2, 3, 2)


def test_of_many_regions_the_highest_are_kept() -> None:
    heat = np.zeros((60, 60), np.float32)
    heat[::3, ::3] = np.arange(1, 401).reshape(20, 20)
    found = regions.find(heat, 0.5, 60, 60)
    assert [one["peak"] for one in found] == [float(i) for i in range(400, 300, -1)]


@pytest.mark.parametrize(("orientation", "patch"), [(6, None), (8, {"size": 32}), (3, None)])
def test_a_defect_is_found_in_the_pixels_of_the_upright_image(
    orientation: int, patch: dict[str, int] | None
) -> None:
    """The upright picture is 320 by 160 with a white patch at x 200 to 240, y 40 to 60."""
    turns = {1: 0, 6: 1, 8: 3, 3: 2}  # quarter turns against the clock that EXIF undoes
    rng = np.random.default_rng(0)
    pixels = rng.integers(95, 105, (160, 320)).astype(np.uint8)
    pixels[40:60, 200:240] = 250
    exif = Image.Exif()
    exif[0x0112] = orientation
    sink = io.BytesIO()
    Image.fromarray(np.rot90(pixels, turns[orientation])).save(sink, "PNG", exif=exif)
    detector = small("autoencoder", image_size=64, patch=patch)
    # An untrained decoder gives grey: the map is the distance from it.
    model = Model(detector, None)
    decoded = [
        decode(sink.getvalue(), Preprocessing(image_size=64, channels=1)),
        decode(b"", model.preprocessing),
    ]
    rows = [dict.fromkeys(CARRIED) | {"image_id": name, "uri": f"/{name}.png"} for name in "ab"]
    scored, found = rows_and_regions(model, rows, decoded, 0.5)
    assert scored.drop(["scored_at"]).equals(score_rows(model, rows, decoded).drop(["scored_at"]))
    assert found.schema == regions.SCHEMA
    (one,) = found.to_pylist()
    assert (one["image_id"], one["uri"]) == ("a", "/a.png")
    # A pixel of the map is 5 by 2.5 pixels of the image.
    for key, expected, off in (("x0", 200, 5), ("x1", 240, 5), ("y0", 40, 3), ("y1", 60, 3)):
        assert abs(one[key] - expected) <= off, key
    assert one["area"] == pytest.approx(40 * 20, rel=0.3)
    assert 200 <= one["peak_x"] < 240
    assert 40 <= one["peak_y"] < 60


def add_regions(folder: str, *models: str) -> None:
    """Two regions for every image with a score whose id is even, as a job writes them."""
    for model in models:
        regions.begin(folder, model)
    for file in list_files(folder):
        if file.model in models:
            rows = pa.parquet.read_table(file.uri)
            found = [
                {
                    "image_id": row["image_id"],
                    "uri": row["uri"],
                    "x0": 2,
                    "y0": 3,
                    "x1": 9,
                    "y1": 8,
                    "area": 30,
                    "peak": 1.5 + second,
                    "peak_x": 4,
                    "peak_y": 5,
                }
                for row in rows.to_pylist()
                for second in (0, 1)
                if row["error"] is None and int(row["image_id"], 16) % 2 == 0
            ]
            regions.write(file, pa.Table.from_pylist(found, schema=regions.SCHEMA))


@pytest.fixture
def table(tmp_path: Path) -> str:
    """Two models in nine parts each; one has regions."""
    rows = {MODEL: make_rows(num=60), OTHER: make_rows(num=60, seed=1)}
    folder = write_table(str(tmp_path / "table"), rows, part_rows=7)
    add_regions(folder, MODEL)
    return folder


EVERY = "SELECT * FROM regions ORDER BY ALL"


def test_sql_reads_them_and_scores_stay_as_they_are(table: str) -> None:
    found = ScoreTable(table).query(EVERY)
    assert tuple(found.schema.names) == regions.COLUMNS
    assert len(found) == 58
    assert set(found["model"].to_pylist()) == {MODEL}
    assert len(ScoreTable(table).query("SELECT * FROM scores")) == 120
    for model in {file.model for file in list_files(table)}:
        write_schema_mark(table, model)  # as a job does
    beside = pandas.read_parquet(f"{table}/_regions")
    assert len(beside) == 58
    assert len(pandas.read_parquet(table)) == 120
    with pytest.raises(QueryError, match="regions has image_id, uri, x0"):
        ScoreTable(table).query("SELECT nothing FROM regions")


def test_the_sql_of_the_readme_runs(tmp_path: Path) -> None:
    folder = small_table(tmp_path)
    add_regions(folder, MODEL)
    (block,) = re.findall(r"```sql\n(.*?)```", README, re.DOTALL)
    statements = [one for one in block.split(";") if one.strip()]
    assert len(statements) == 2
    for statement in statements:
        assert len(ScoreTable(folder).query(statement)) > 0, statement


def test_the_crops_of_the_readme_are_the_boxes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = make_rows(num=4, num_failed=0, folder=str(tmp_path / "images"))
    for row in rows:
        Path(row["uri"]).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 24)).save(row["uri"])
    add_regions(write_table(str(tmp_path / "scores"), {MODEL: rows}), MODEL)
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    crops = sorted(tmp_path.glob("region-*.png"))
    assert len(crops) == 4
    for crop in crops:
        with Image.open(crop) as image:
            assert image.size == (7, 5)


def test_a_table_without_them_says_how_to_get_some(tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="has no regions: score with --regions into a fresh --out"):
        ScoreTable(small_table(tmp_path)).query("SELECT * FROM regions")


def test_regions_whose_scores_are_not_there_do_not_count(table: str) -> None:
    """As after a kill between the two."""
    before = len(ScoreTable(table).query(EVERY))
    file = next(file for file in list_files(table) if file.model == MODEL)
    inside = len(regions.read(file))
    storage.remove(file.uri)
    assert inside > 0
    assert len(ScoreTable(table).query(EVERY)) == before - inside


def test_a_missing_file_is_named(table: str) -> None:
    file = next(file for file in list_files(table) if file.model == MODEL)
    storage.remove(file.regions.uri)
    with pytest.raises(TableError, match=r"_regions/model=.*run the same ganad score command"):
        ScoreTable(table).query(EVERY)
    assert len(ScoreTable(table).query("SELECT * FROM scores")) == 120


@pytest.mark.parametrize("removals", [0, 4, 9, 12, 100])
def test_they_are_merged_with_their_scores_whenever_the_command_is_killed(
    table: str, removals: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ScoreTable(table).query(EVERY)
    killed_at_removal(monkeypatch, removals)
    if removals < 100:
        with pytest.raises(KeyboardInterrupt):
            compact(table)
        assert ScoreTable(table).query(EVERY).equals(before)
    monkeypatch.undo()
    compact(table)
    assert ScoreTable(table).query(EVERY).equals(before)
    assert len(list_files(f"{table}/_regions")) == 1
    assert len(list_files(table)) == 2


def test_a_repaired_image_gets_its_regions_once(table: str) -> None:
    file = next(file for file in list_files(table) if file.model == MODEL)
    before = regions.read(file)
    (row, *_) = before.to_pylist()
    fresh = pa.Table.from_pylist([{**row, "image_id": "new"}], schema=regions.SCHEMA)
    for _ in range(2):
        regions.replace_images(file, pa.array(["new", "other"]), fresh)
    assert regions.read(file).equals(pa.concat_tables([before, fresh]))
