"""The benchmark of many rows, with a few: what it writes is what a real job would have written."""

import pytest

from ganad.archive.manifest import open_manifest
from ganad.saved import read_info
from ganad.scores.compact import compact
from ganad.scores.table import ScoreTable
from pipelines.benchmark.large import steps
from pipelines.benchmark.large.rows import Cost, as_markdown
from pipelines.benchmark.large.synthetic import EMPTY, Archive, write_archive
from pipelines.benchmark.scoring_data import untrained
from pipelines.passes.units import UnitSize
from pipelines.score.plan import Plan

NUM = 3000


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return untrained(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def archive(model: str, tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return write_archive(tmp_path_factory.mktemp("rows") / "rows", model, NUM)


def test_the_table_is_that_of_the_manifest_without_the_last_unit(
    archive: Archive, model: str
) -> None:
    manifest = open_manifest(archive.manifest)
    id = read_info(model)["id"]
    plan = Plan(archive.table, [id], UnitSize(375, 65_536))
    (unit,) = plan.add(manifest.parts)[id,]
    assert plan.num_images_before + unit.num == manifest.num_images == NUM
    assert {row["error"] for row in unit.rows()} == {EMPTY}
    assert manifest.num_errors == unit.num
    rows = manifest.table()
    scored = ScoreTable(archive.table).query("SELECT * FROM scores ORDER BY name")
    for column in ("image_id", "uri", "name"):
        assert scored[column].equals(rows[column].slice(0, len(scored)))
    counts = ScoreTable(archive.table).counts()[id]
    assert counts["in"] == counts["distinct"] == NUM - unit.num
    assert rows["uri"][1234].as_py() == "s3://bucket/archive/000001/00001234.jpg"


def test_every_step_runs_before_and_after_compaction(archive: Archive, model: str) -> None:
    steps.plan(archive.table, read_info(model)["id"], archive.manifest)
    for compacted in (False, True):
        if compacted:
            compact(archive.table)
        steps.report(archive.table)
        steps.browse(archive.table)
    assert len(ScoreTable(archive.table).parts) == 1


def test_costs_stand_beside_each_other() -> None:
    costs = [
        cost
        for num in (1000, 2000)
        for cost in (Cost("plan", num, 8, 1.5, 0.5, 200), Cost("first result", num, 9, 25.0))
    ]
    lines = as_markdown(costs).splitlines()
    assert lines[2] == "| plan | 1.5 | 0.5 | 200 | 1.5 | 0.5 | 200 |"
    assert lines[3] == "| first result | 25 ||| 25 |||"
    assert lines[-1] == "Files after `ganad compact`: 9, 9"
