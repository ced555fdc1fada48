"""--retry-failed: images with an error are scored again, and nothing else is."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from ganad.scores.table import ScoreTable
from ganad.storage import files as storage
from pipelines.passes import units
from pipelines.score import retry
from pipelines.score.run import score
from pipelines.train.request import TrainRequest
from pipelines.train.run import train
from tests.pipelines.processes import parts
from tests.pipelines.small_model import SMALL

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture
def archive(image_folder: Path, tmp_path: Path) -> Path:
    """Eight images, of which two cannot be read."""
    folder = tmp_path / "archive"
    folder.mkdir()
    for path in sorted((image_folder / "test" / "good").iterdir()):
        shutil.copy(path, folder)
    (folder / "001.png").write_bytes(b"junk")
    (folder / "006.png").write_bytes(b"")
    return folder


def rows(table: Path) -> dict[str, tuple[float | None, str | None]]:
    found = ScoreTable(str(table)).query("SELECT name, score, error FROM scores").to_pylist()
    assert len(found) == len({row["name"] for row in found})
    return {row["name"]: (row["score"], row["error"]) for row in found}


def test_a_score_is_not_lost_when_its_image_is_gone_by_the_time_of_a_repair(
    model: str, archive: Path, image_folder: Path, tmp_path: Path
) -> None:
    table = tmp_path / "table"
    score([model], [str(archive)], str(table), gpu=False)
    before = rows(table)
    shutil.copy(image_folder / "test" / "good" / "001.png", archive)
    (archive / "000.png").unlink()
    (run,) = score([model], [str(archive)], str(table), gpu=False, retry_failed=True).values()
    after = rows(table)
    assert before["000.png"][0] is not None
    assert after["001.png"][0] is not None
    assert after["006.png"] == before["006.png"] == (None, "the file is empty")
    assert {**after, "001.png": None} == {**before, "001.png": None}
    assert [run.counts[key] for key in ("in", "scored", "failed")] == [8, 7, 1]
    assert run.timings["images_retried"] == 2
    assert run.timings["images_scored_now"] == 0
    assert ScoreTable(str(table)).check_counts() == []
    assert not (table / "_retry").exists()


def test_files_without_errors_are_not_written_again(
    model: str, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "rows_per_unit", lambda *_: 2)
    monkeypatch.setattr("pipelines.score.work.rows_per_unit", lambda *_: 2)
    table = tmp_path / "table"
    score([model], [str(archive)], str(table), gpu=False)
    before = {path: path.stat().st_mtime_ns for path in parts(table)}
    score([model], [str(archive)], str(table), gpu=False, retry_failed=True)
    after = {path: path.stat().st_mtime_ns for path in parts(table)}
    written = {path.name for path in before if before[path] != after[path]}
    assert written == {"part-000000.parquet", "part-000003.parquet"}


def test_a_unit_that_one_of_two_models_has_scored_keeps_its_scores(
    model: str, archive: Path, image_folder: Path, tmp_path: Path
) -> None:
    """As after a kill between the parts of a unit's two models; meanwhile an image has gone."""
    other, table, source = str(tmp_path / "other"), tmp_path / "table", [str(archive)]
    values, images = {**SMALL, "epochs": 1}, [str(image_folder / "train")]
    train(TrainRequest("ganomaly", images, other, values=values, workers=1, gpu=False))
    score([model, other], source, str(table), gpu=False)
    first, second = sorted(table.glob("model=*"))
    before = {path: path.read_bytes() for path in parts(table) if first in path.parents}
    for path in second.iterdir():
        path.unlink()
    (archive / "000.png").unlink()
    runs = score([model, other], source, str(table), gpu=False)
    assert {path: path.read_bytes() for path in before} == before
    assert sorted(run.counts["failed"] for run in runs.values()) == [2, 3]


@pytest.mark.parametrize("moment", ["while it scores", "while it writes"])
def test_a_retry_that_is_cut_off_goes_on(
    moment: str,
    model: str,
    archive: Path,
    image_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipelines.score.work.rows_per_unit", lambda *_: 2)
    table, source = tmp_path / "table", [str(archive)]
    score([model], source, str(table), gpu=False)
    before = rows(table)
    for name in ("001.png", "006.png"):
        shutil.copy(image_folder / "test" / "good" / name, archive)

    def cut_off(*_: Any) -> None:
        raise KeyboardInterrupt

    written = 0
    write_bytes = storage.write_bytes

    def once(uri: str, data: bytes) -> None:
        nonlocal written
        written += "/table/model=" in uri
        if written > 1:
            raise KeyboardInterrupt
        write_bytes(uri, data)

    with monkeypatch.context() as patch:
        if moment == "while it scores":
            patch.setattr("pipelines.score.work.finish_retry", cut_off)
        else:
            patch.setattr(storage, "write_bytes", once)
        with pytest.raises(KeyboardInterrupt):
            score([model], source, str(table), gpu=False, retry_failed=True)
    assert (table / "_retry").exists()
    assert ScoreTable(str(table)).unfinished
    (run,) = score([model], source, str(table), gpu=False, retry_failed=True).values()
    assert run.counts["failed"] == 0
    good = {name: value for name, value in before.items() if value[0] is not None}
    assert good.items() < rows(table).items()
    assert not (table / "_retry").exists()


def test_errors_that_came_after_a_retry_was_cut_off_stay(tmp_path: Path) -> None:
    from tests.ganad.scores.make_table import MODEL, make_rows, write_table

    table = str(tmp_path / "table")
    write_table(table, {MODEL: make_rows(num=6, num_failed=2)}, part_rows=2)
    (fixed, *_) = make_rows(num=6, num_failed=0)
    write_table(f"{table}/_retry", {MODEL: [fixed]}, run=False)
    retry.finish_retry(table)
    counts = ScoreTable(table).counts()[MODEL]
    assert (counts["scored"], counts["failed"]) == (5, 1)
