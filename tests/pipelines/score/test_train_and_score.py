"""The two jobs on a real Ray: what they leave on disk, and what a second run does."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from ganad import load
from ganad.archive.manifest import open_manifest
from ganad.errors import CapacityError, ConfigError, Mismatch, TrainingError
from ganad.scores.files import list_files
from ganad.scores.parts import read_part
from ganad.scores.table import ScoreTable
from pipelines.passes import units
from pipelines.passes.decoding import decode_unit
from pipelines.passes.units import Unit, UnitSize, cut
from pipelines.score.run import score
from pipelines.score.scorer import Scorer
from pipelines.train.request import TrainRequest
from pipelines.train.run import train
from tests.pipelines.small_model import SMALL

GANOMALY: dict[str, Any] = {
    "image_size": 16,
    "channels": 1,
    "width": 8,
    "latent": 10,
    "batch_size": 8,
    "epochs": 3,
    "precision": "float32",
}
GAUSSIAN: dict[str, Any] = {
    "image_size": 32,
    "backbone": {"name": "resnet18", "weights": "random"},
}

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(scope="module")
def ganomaly(ray_cluster: None, image_folder: Path, tmp_path_factory: Any) -> str:
    """A GANomaly trained on two workers."""
    out = str(tmp_path_factory.mktemp("models") / "ganomaly")
    train(
        TrainRequest(
            "ganomaly", [str(image_folder / "train")], out, values=GANOMALY, workers=2, gpu=False
        )
    )
    return out


@pytest.fixture(scope="module")
def gaussian(ray_cluster: None, image_folder: Path, tmp_path_factory: Any) -> str:
    """A Gaussian detector on random features."""
    out = str(tmp_path_factory.mktemp("models") / "gaussian")
    train(TrainRequest("gaussian", [str(image_folder / "train")], out, values=GAUSSIAN, gpu=False))
    return out


@pytest.fixture
def bad_archive(image_folder: Path, tmp_path: Path) -> Path:
    """Eight good images, eight cracked ones, and three that cannot be decoded."""
    archive = tmp_path / "archive"
    shutil.copytree(image_folder / "test", archive / "test")
    good = archive / "test" / "good"
    (good / "empty.png").write_bytes(b"")
    (good / "garbage.jpg").write_bytes(b"not an image at all")
    whole = next(good.glob("*.png")).read_bytes()
    (good / "truncated.png").write_bytes(whole[: len(whole) // 2])
    return archive


def parts(table: Path) -> dict[str, bytes]:
    """Every part file of a table by name."""
    return {str(p.relative_to(table)): p.read_bytes() for p in table.glob("model=*/*.parquet")}


def by_id(table: Path) -> dict[str, float | None]:
    rows = pa.concat_tables(
        pq.read_table(path, columns=["image_id", "score"], partitioning=None)
        for path in sorted(table.glob("model=*/*.parquet"))
    )
    return dict(zip(rows["image_id"].to_pylist(), rows["score"].to_pylist(), strict=True))


def test_a_trained_model_s_folder(ganomaly: str) -> None:
    folder = Path(ganomaly)
    info = json.loads((folder / "model.json").read_text())
    training = info["training"]
    assert info["config"]["epochs"] == 3
    assert training["num_workers"] == 2
    assert training["num_train"] + training["num_calibration"] + training["num_validation"] == 40
    epochs = [entry["epoch"] for entry in training["history"] if "epoch" in entry]
    assert epochs == [1, 2, 3]
    assert list((folder / "training" / "tensorboard").glob("events.out.tfevents.*"))
    with Image.open(sorted((folder / "training" / "grids").glob("*.png"))[-1]) as grid:
        assert grid.height > 3 * 16  # originals, reconstructions, maps
    left = {path.name for path in (folder / "training").iterdir()}
    made = {"curves.json", "grids", "tensorboard"}
    assert left == {"job.json", "manifest", "split.parquet", *made}
    page = (folder / "training.html").read_text()
    assert page.count("<svg") >= 7  # five losses, the rate, calibration
    assert "data:image/png" in page
    assert not [p for p in folder.rglob("*") if p.suffix in (".pt", ".pkl", ".pickle", ".bin")]


def test_one_worker_trains_the_model_of_two(
    ray_cluster: None, ganomaly: str, image_folder: Path, tmp_path: Path
) -> None:
    out, source = str(tmp_path / "model"), [str(image_folder / "train")]
    train(TrainRequest("ganomaly", source, out, values=GANOMALY, workers=1, gpu=False))
    one, two = load(out).detector.state_dict(), load(ganomaly).detector.state_dict()
    for key, value in one.items():
        torch.testing.assert_close(value, two[key], rtol=1e-3, atol=1e-4)


def test_the_split_is_stored_and_its_parts_do_not_overlap(ganomaly: str) -> None:
    split = pq.read_table(Path(ganomaly) / "training" / "split.parquet")
    assert len(split) == 40
    assert len(set(split["image_id"].to_pylist())) == 40
    held_out = split.filter(pa.compute.equal(split["part"], "calibration"))
    calibration = load(ganomaly).calibration
    assert calibration is not None
    assert set(calibration.ids) == set(held_out["image_id"].to_pylist())


def test_training_again_does_nothing(
    ganomaly: str, image_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (Path(ganomaly) / "model.json").read_bytes()
    source = [str(image_folder / "train")]
    train(TrainRequest("ganomaly", source, ganomaly, values=GANOMALY, workers=2, gpu=False))
    assert "trained already" in capsys.readouterr().err
    assert (Path(ganomaly) / "model.json").read_bytes() == before


def test_another_config_is_refused_in_words(ganomaly: str, image_folder: Path) -> None:
    with pytest.raises(Mismatch, match=r"config\.epochs was 3, now 4.*fresh --out"):
        train(
            TrainRequest(
                "ganomaly",
                [str(image_folder / "train")],
                ganomaly,
                values={**GANOMALY, "epochs": 4},
            )
        )


def test_abnormal_images_do_not_train(image_folder: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "model")
    with pytest.raises(TrainingError, match=r"8 images labelled abnormal \(crack 8\)"):
        train(TrainRequest("ganomaly", [str(image_folder / "test")], out, values=GANOMALY))
    # Nothing has begun there: the source that was meant may follow.
    lost = {"backbone": {"name": "resnet18", "weights": str(tmp_path / "lost.pth")}}
    source = [str(image_folder / "train")]
    with pytest.raises(ConfigError, match=r"lost\.pth is not a file"):
        train(TrainRequest("gaussian", source, out, values=lost))
    assert not (tmp_path / "model" / "training" / "job.json").exists()


def test_missing_weights_are_reported_before_anything_is_listed(tmp_path: Path) -> None:
    lost = {"backbone": {"name": "resnet18", "weights": str(tmp_path / "lost.pth")}}
    with pytest.raises(ConfigError, match=r"lost\.pth is not a file"):
        train(
            TrainRequest(
                "gaussian", [str(tmp_path / "no folder")], str(tmp_path / "model"), values=lost
            )
        )
    assert not list(tmp_path.iterdir())


def test_more_workers_than_there_can_be_are_refused(
    ganomaly: str, image_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(CapacityError, match=r"^--workers 64 needs 64 processor cores"):
        score([ganomaly], [str(image_folder / "test")], str(tmp_path / "t"), workers=64)


def test_two_models_score_an_archive_in_one_pass(
    ganomaly: str, gaussian: str, bad_archive: Path, tmp_path: Path
) -> None:
    table = tmp_path / "table"
    runs = score([ganomaly, gaussian], [str(bad_archive)], str(table), gpu=False)
    ids = {load(ganomaly).id, load(gaussian).id}
    assert set(runs) == ids
    for run in runs.values():
        assert [run.counts[key] for key in ("in", "scored", "failed")] == [19, 16, 3]
        assert sum(run.failures.values()) == 3
    rows = ScoreTable(str(table)).query("SELECT * FROM scores").to_pylist()
    assert len(rows) == 2 * 19
    assert {row["model"] for row in rows} == ids
    failed = [row for row in rows if row["error"]]
    assert len(failed) == 2 * 3
    assert all(row["score"] is None and row["p_value"] is None for row in failed)
    scored = [row for row in rows if not row["error"]]
    assert all(0 < row["p_value"] <= 1 and row["width"] == 32 for row in scored)
    assert {row["label"] for row in rows} == {"good", "crack"}


def test_a_second_run_touches_nothing(ganomaly: str, image_folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "table"
    source = [str(image_folder / "test")]
    score([ganomaly], source, str(table), gpu=False)
    times = {path: path.stat().st_mtime_ns for path in table.glob("model=*/*.parquet")}
    (run,) = score([ganomaly], source, str(table), gpu=False).values()
    assert {path: path.stat().st_mtime_ns for path in table.glob("model=*/*.parquet")} == times
    assert run.timings["images_scored_now"] == 0


def test_a_missing_part_is_made_again_with_the_same_scores(
    ganomaly: str, image_folder: Path, tmp_path: Path
) -> None:
    table = tmp_path / "table"
    source = [str(image_folder)]
    score([ganomaly], source, str(table), gpu=False, workers=1)
    before = by_id(table)
    sorted(table.glob("model=*/*.parquet"))[0].unlink()
    shutil.rmtree(table / "_runs")
    score([ganomaly], source, str(table), gpu=False, workers=2)
    assert by_id(table) == before


def test_a_table_of_other_images_is_refused(
    ganomaly: str, image_folder: Path, tmp_path: Path
) -> None:
    table = str(tmp_path / "table")
    score([ganomaly], [str(image_folder / "test")], table, gpu=False)
    with pytest.raises(Mismatch, match=r"its source was .*test.*fresh --out"):
        score([ganomaly], [str(image_folder / "train")], table, gpu=False)


def test_a_further_model_joins_a_finished_table(
    ganomaly: str, gaussian: str, image_folder: Path, tmp_path: Path
) -> None:
    table, source = tmp_path / "table", [str(image_folder / "test")]
    score([ganomaly], source, str(table), gpu=False)
    before = parts(table)
    (run,) = score([gaussian], source, str(table), gpu=False).values()
    assert run.counts["scored"] == 16
    assert ScoreTable(str(table)).check_counts() == []
    assert len(ScoreTable(str(table)).counts()) == 2
    assert before.items() < parts(table).items()  # the first model's are untouched
    shutil.rmtree(table / "_runs")
    another = str(tmp_path / "another")
    train(
        TrainRequest(
            "ganomaly", [str(image_folder / "train")], another, values=SMALL, workers=1, gpu=False
        )
    )
    with pytest.raises(Mismatch, match=r"holds unfinished work of ganomaly-\w+, gaussian-\w+: "):
        score([another], source, str(table), gpu=False)


def test_training_and_scoring_see_the_same_pixels(
    ganomaly: str, image_folder: Path, tmp_path: Path
) -> None:
    # Calibration saw the shards of the training job; the scoring job decodes for itself, and so
    # does the library. All three must agree.
    table = tmp_path / "table"
    score([ganomaly], [str(image_folder / "train")], str(table), gpu=False)
    scored = by_id(table)
    model = load(ganomaly)
    assert model.calibration is not None
    stored = pq.read_table(Path(ganomaly) / "calibration.parquet")
    assert len(stored) > 0
    for image_id, its in zip(
        stored["image_id"].to_pylist(), stored["score"].to_pylist(), strict=True
    ):
        assert scored[image_id] == pytest.approx(its, rel=1e-5)
    rows = open_manifest(str(table / "_manifest")).table().to_pylist()
    alone = model.score([row["uri"] for row in rows])
    for row, one in zip(rows, alone.score, strict=True):
        assert scored[row["image_id"]] == pytest.approx(one, rel=1e-5)


def test_apart_together_or_in_pieces_the_stages_give_the_same_table(
    ganomaly: str, bad_archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ganad.archive.manifest import write_manifest

    manifest = write_manifest([str(bad_archive)], str(tmp_path / "manifest"))
    (unit,) = cut(manifest.parts, UnitSize(100))
    batch = {key: np.array([value]) for key, value in unit.item().items()}
    assert Unit.of(batch) == unit
    threads = torch.get_num_threads()
    together = Scorer(models=[ganomaly], num_threads=1, table=str(tmp_path / "together"))
    together(dict(batch))
    apart = Scorer(models=[ganomaly], num_threads=1, table=str(tmp_path / "apart"))
    apart(decode_unit(dict(batch), [model.preprocessing for model in apart.models]))
    with monkeypatch.context() as patched:
        patched.setattr(units, "UNIT_ROWS", 3)
        pieces = Scorer(models=[ganomaly], num_threads=1, table=str(tmp_path / "pieces"))
        pieces(dict(batch))
    with monkeypatch.context() as patched:
        patched.setattr(units, "UNIT_BYTES", 1)  # too large for the stage: left to the worker
        left = decode_unit(dict(batch), [model.preprocessing for model in apart.models])
    assert "pixels" not in left
    torch.set_num_threads(threads)
    columns = ["image_id", "score", "p_value", "width", "height", "error"]
    tables = [
        pq.read_table(next((tmp_path / which).glob("model=*/*.parquet")), partitioning=None)
        for which in ("together", "apart", "pieces")
    ]
    for other in tables[1:]:
        assert tables[0].select(columns).equals(other.select(columns))
    (_, notes) = read_part(list_files(str(tmp_path / "pieces"))[0])
    assert sum(note["rows"] for note in notes) == unit.num > len(notes) > 1


def test_source_model_and_table_on_s3(s3: Any, image_folder: Path) -> None:
    for path in sorted((image_folder / "train").rglob("*.png")):
        s3.put(f"jobs/{path.relative_to(image_folder)}", path.read_bytes())
    source, model, table = (s3.url(f"jobs/{name}") for name in ("train", "model", "table"))
    train(
        TrainRequest(
            "ganomaly", [source], model, values={**GANOMALY, "epochs": 1}, workers=1, gpu=False
        )
    )
    (run,) = score([model], [source], table, gpu=False, workers=1).values()
    assert [run.counts[key] for key in ("in", "scored", "failed")] == [40, 40, 0]
    assert len(ScoreTable(table).query("SELECT * FROM scores")) == 40
    raw = b"".join(path.read_bytes() for path in s3.root.rglob("*.json"))
    assert b"ganadtests" not in raw  # the secret key is in no file
