"""--regions: written with the scores of a job, once for every image, however the job goes."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ganad import fit
from ganad.archive.listing import list_images
from ganad.errors import Mismatch, ModelError
from ganad.heat import Heat
from ganad.images.load import load_images
from ganad.model import Model
from ganad.scores import regions
from ganad.scores.compact import compact
from ganad.scores.files import list_files
from ganad.scores.table import ScoreTable
from pipelines.passes.units import Unit
from pipelines.passes.worker import DecodedUnit
from pipelines.score.levels import SHARE
from pipelines.score.retry import finish_retry
from pipelines.score.run import score
from pipelines.score.scorer import Scorer
from pipelines.train.request import TrainRequest
from pipelines.train.run import train
from tests.ganad.detectors.small import small
from tests.pipelines.small_model import SMALL

with_ray = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture
def archive(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight cracks, of which one cannot be read, in units of two."""
    monkeypatch.setattr("pipelines.score.work.rows_per_unit", lambda *_: 2)
    folder = tmp_path / "archive"
    shutil.copytree(image_folder / "test" / "crack", folder)
    (folder / "001.png").write_bytes(b"junk")
    return folder


def rows(table: Path) -> list[dict[str, Any]]:
    return ScoreTable(str(table)).query("SELECT * FROM regions ORDER BY ALL").to_pylist()


def unit_of(archive: Path, worker: Scorer) -> DecodedUnit:
    """All images of the archive as one unit, decoded."""
    rows = list(list_images([str(archive)]))
    decoded = load_images(rows, worker.preprocessings)
    record = {"began": 0.0, "decode_s": 0.0, "retries": {}}
    return DecodedUnit(Unit(0, "", 0, len(rows)), rows, decoded, record)


def write(worker: Scorer, images: DecodedUnit) -> None:
    """Score a unit in one piece, and write it."""
    worker.join([worker.work(images)])


def test_a_unit_that_is_cut_off_between_its_files_has_its_regions_once(
    archive: Path, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, table = str(tmp_path / "model"), tmp_path / "table"
    made = fit("ganomaly", image_folder / "train", out=out, **SMALL)
    heat = Heat.read(out)
    assert heat is not None
    worker = Scorer(models=[out], num_threads=1, table=str(table), levels=[heat.level(SHARE)])
    regions.begin(str(table), made.id)
    images = unit_of(archive, worker)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pipelines.score.scorer.write_part", killed)
        with pytest.raises(KeyboardInterrupt):
            write(worker, images)
    assert len(list_files(str(table / "_regions"))) == 1
    assert list_files(str(table)) == []
    write(worker, images)
    found = rows(table)
    assert found
    assert all(row["peak"] > heat.level(SHARE) for row in found)
    assert not any(row["uri"].endswith("/001.png") for row in found)
    before = [Path(file.regions.uri).read_bytes() for file in list_files(str(table))]
    write(worker, images)  # given out again: what is there stays
    assert [Path(file.regions.uri).read_bytes() for file in list_files(str(table))] == before

    # The image that could not be read is scored again, as by --retry-failed.
    shutil.copy(image_folder / "test" / "crack" / "001.png", archive)
    again = tmp_path / "table" / "_retry"
    second = Scorer(models=[out], num_threads=1, table=str(again), levels=[heat.level(SHARE)])
    repaired = unit_of(archive, second)
    failed = [i for i, row in enumerate(repaired.rows) if row["name"] == "001.png"]
    some = [[values[i] for i in failed] for values in (repaired.rows, repaired.decoded)]
    write(second, replace(repaired, unit=Unit(0, "", 0, 1), rows=some[0], decoded=some[1]))
    new = regions.read(list_files(str(again))[0]).num_rows
    finish_retry(str(table))
    assert len(rows(table)) == len(found) + new
    assert [row for row in rows(table) if not row["uri"].endswith("/001.png")] == found
    assert not again.exists()


@with_ray
def test_a_job_that_is_cut_off_ends_with_the_regions_of_a_whole_one(
    model: str,
    archive: Path,
    image_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table, source = tmp_path / "table", [str(archive)]
    (scored,) = score([model], source, str(table), gpu=False, regions=True)
    before = rows(table)
    assert before
    names = {row["uri"] for row in before}
    assert all(0 <= row["x0"] <= row["peak_x"] < row["x1"] <= 32 for row in before)
    assert not any(name.endswith("/001.png") for name in names)
    first, second, third, _ = list_files(str(table))
    # Killed before the scores of a unit were written, and a file lost or damaged later.
    Path(first.uri).unlink()
    Path(second.regions.uri).unlink()
    Path(third.regions.uri).write_bytes(b"junk")
    capsys.readouterr()
    (run,) = score([model], source, str(table), gpu=False).values()
    said = capsys.readouterr().err
    assert f"{scored} goes on with regions, as it began" in said
    assert "2 damaged parts are scored again" in said
    assert run.timings["images_scored_now"] == 6
    assert rows(table) == before

    shutil.copy(image_folder / "test" / "crack" / "001.png", archive)
    score([model], source, str(table), gpu=False, retry_failed=True)
    repaired = rows(table)
    assert [row for row in repaired if not row["uri"].endswith("/001.png")] == before
    fresh = tmp_path / "fresh"
    score([model], source, str(fresh), gpu=False, regions=True)
    assert repaired == rows(fresh)
    assert len(repaired) > len(before)
    compact(str(table))
    assert rows(table) == repaired


@with_ray
def test_a_further_model_has_them_or_not_and_never_by_halves(
    model: str, archive: Path, image_folder: Path, tmp_path: Path
) -> None:
    other, table, source = str(tmp_path / "other"), tmp_path / "table", [str(archive)]
    images = (str(image_folder / "train"),)
    train(TrainRequest("ganomaly", images, other, {**SMALL, "epochs": 1}, workers=1, gpu=False))
    score([model], source, str(table), gpu=False)
    with pytest.raises(Mismatch, match=r"^--regions: .* without regions: leave it out, or give"):
        score([model], source, str(table), gpu=False, regions=True)
    (second,) = score([other], source, str(table), gpu=False, regions=True)
    assert {row["model"] for row in rows(table)} == {second}
    together = tmp_path / "together"
    both = score([model, other], source, str(together), gpu=False, regions=True)
    found = rows(together)
    assert {row["model"] for row in found} == set(both)
    assert [row for row in found if row["model"] == second] == rows(table)


@with_ray
def test_a_model_without_a_level_is_refused(archive: Path, tmp_path: Path) -> None:
    out = Model(small("knn"), None).save(str(tmp_path / "knn"))
    table = tmp_path / "table"
    with pytest.raises(
        ModelError, match=r"^--regions: .*knn has no record of .*: leave it out, or"
    ):
        score([out], [str(archive)], str(table), gpu=False, regions=True)
    assert not list(table.glob("model=*"))
