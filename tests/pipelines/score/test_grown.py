"""An archive that grows between two runs of the same command: only what is new is scored."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from ganad.errors import Mismatch
from ganad.scores.records import read_runs
from ganad.scores.table import ScoreTable
from pipelines.cli.index import index
from pipelines.score.run import score

pytestmark = pytest.mark.usefixtures("ray_cluster")


def times(table: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in table.glob("model=*/*.parquet")}


def scores(table: Path) -> dict[str, float]:
    rows = ScoreTable(str(table)).query("SELECT name, score FROM scores").to_pylist()
    assert len(rows) == len({row["name"] for row in rows})
    return {row["name"]: row["score"] for row in rows}


@pytest.mark.parametrize("kind", ["folder", "manifest"])
def test_only_new_images_are_scored(
    kind: str, model: str, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive, table = tmp_path / "archive", tmp_path / "table"
    shutil.copytree(image_folder / "test" / "good", archive / "good")
    source = str(archive)
    if kind == "manifest":
        source = str(tmp_path / "manifest")
        index([str(archive)], source)
    score([model], [source], str(table), gpu=False)
    before, scored = times(table), scores(table)
    assert len(scored) == 8
    shutil.copytree(image_folder / "test" / "crack", archive / "crack")  # sorts before good
    if kind == "manifest":
        index([str(archive)], source, refresh=True)
    capsys.readouterr()
    (run,) = score([model], [source], str(table), gpu=False).values()
    assert run.timings["images_scored_now"] == 8
    assert "8 of 16 images are scored already" in capsys.readouterr().err
    assert {path: time for path, time in times(table).items() if path in before} == before
    after = scores(table)
    assert len(after) == 16
    assert {name: after[name] for name in scored} == scored
    assert ScoreTable(str(table)).check_counts() == []
    (run,) = score([model], [source], str(table), gpu=False).values()
    assert run.timings["images_scored_now"] == 0


def test_it_grows_while_a_run_is_unfinished(model: str, image_folder: Path, tmp_path: Path) -> None:
    archive, table = tmp_path / "archive", tmp_path / "table"
    shutil.copytree(image_folder / "test", archive)
    score([model], [str(archive)], str(table), gpu=False)
    whole = scores(table)
    # As a killed run leaves it: a part is missing, nothing says that it has finished.
    sorted(times(table))[0].unlink()
    shutil.rmtree(table / "_runs")
    shutil.copytree(image_folder / "train" / "good", archive / "another")
    (run,) = score([model], [str(archive)], str(table), gpu=False).values()
    assert {name: scores(table)[name] for name in whole} == whole
    assert run.counts["in"] == run.counts["distinct"] == 16 + 40


def test_a_table_that_is_being_brought_up_to_date_is_unfinished(
    model: str, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, table = tmp_path / "archive", tmp_path / "table"
    shutil.copytree(image_folder / "test" / "good", archive)
    score([model], [str(archive)], str(table), gpu=False)
    shutil.copy(image_folder / "test" / "crack" / "000.png", archive / "new.png")

    def cut_off(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pipelines.score.work.stream", cut_off)
        with pytest.raises(KeyboardInterrupt):
            score([model], [str(archive)], str(table), gpu=False)
    (problem,) = ScoreTable(str(table)).check_counts()
    assert problem.endswith("has not finished: run the same ganad score again to continue")
    score([model], [str(archive)], str(table), gpu=False)
    assert ScoreTable(str(table)).check_counts() == []


def test_a_manifest_that_was_made_anew_is_refused(
    model: str, image_folder: Path, tmp_path: Path
) -> None:
    archive, table, source = tmp_path / "archive", tmp_path / "table", str(tmp_path / "manifest")
    shutil.copytree(image_folder / "test" / "good", archive)
    index([str(archive)], source)
    score([model], [source], str(table), gpu=False)
    shutil.copy(image_folder / "test" / "crack" / "000.png", archive / "new.png")
    index([str(archive)], source)
    with pytest.raises(Mismatch, match=r"manifest was .*, now .*grows by\s+ganad index --refresh"):
        score([model], [source], str(table), gpu=False)
    (run,) = read_runs(str(table)).values()
    assert run.manifest is not None
    assert run.manifest.images == 8
