"""The benchmarks, on data small enough for a test."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from ganad import fit
from ganad.errors import ArchiveError, ConfigError, TrainingError
from pipelines.benchmark.data import labelled_rows, open_data_set
from pipelines.benchmark.patches import patches
from pipelines.benchmark.precision import precision
from pipelines.benchmark.quality.accuracy import accuracy, as_markdown
from pipelines.benchmark.search import search

SMALL = ["image_size=16", "channels=1", "width=4", "latent=4", "batch_size=8", "epochs=1"]


def test_accuracy_stands_beside_trivial_detectors_and_resumes(
    ray_cluster: None, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run() -> Any:
        return accuracy(
            str(tmp_path), ["ganomaly"], [str(image_folder)], [0], SMALL, "no", pixels=True
        )

    first = run().to_pylist()
    assert [row["detector"] for row in first] == [
        "constant",
        "bright",
        "dark",
        "unusual brightness",
        "ganomaly",
    ]
    assert first[0]["auroc"] == 0.5
    assert first[1]["auroc"] == pytest.approx(1 - first[2]["auroc"])
    assert first[4]["num"] == 16
    assert first[4]["anomaly_ratio"] == 0.5
    assert 0 < first[4]["pixel_auroc"] < 1
    assert 0 < first[4]["aupro"] < 1
    capsys.readouterr()
    assert run().to_pylist() == first
    assert "training" not in capsys.readouterr().err
    assert "| ganomaly | image_size=16" in (tmp_path / "accuracy.md").read_text()


def test_a_set_whose_normal_images_are_not_known_fails_alone(
    ray_cluster: None, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    numbered = tmp_path / "numbered"
    shutil.copytree(image_folder / "train", numbered / "train")
    shutil.copytree(image_folder / "test" / "good", numbered / "test" / "0")
    shutil.copytree(image_folder / "test" / "crack", numbered / "test" / "1")

    def run(out: str, sets: list[Path], **options: Any) -> Any:
        place = str(tmp_path / out)
        return accuracy(place, ["ganomaly"], list(map(str, sets)), [0], SMALL, "no", **options)

    message = (
        r"numbered has no test image that is known to be normal \(its labels: 0, 1\): say which "
        r"labels are normal by --normal"
    )
    with pytest.raises(TrainingError, match=f"^1 runs failed, the first: {message}$"):
        run("mixed", [numbered, image_folder])
    text = (tmp_path / "mixed" / "accuracy.md").read_text()
    assert "| numbered | ganomaly | | 0 of 1 | failed: numbered has no test image" in text
    assert f"| {image_folder.name} | ganomaly | image_size=16" in text
    assert "numbered has no test image" in capsys.readouterr().err
    (*_, row) = run("told", [numbered], normal=["0"]).to_pylist()
    assert (row["num"], row["num_abnormal"], row["error"]) == (16, 8, None)


def test_means_come_with_their_spread() -> None:
    rows = [
        {"data": "d", "detector": "a", "auroc": value, "aupr": 0.5, "anomaly_ratio": 0.25}
        for value in (0.7, 0.8, 0.9)
    ]
    assert "| d | a |  | 3 | 0.800 ± 0.100 | 0.500 ± 0.000 |  |  | 0.250 |" in as_markdown(rows)


def test_digits_keep_the_abnormal_class_out_of_training(tmp_path: Path) -> None:
    chosen = open_data_set("digits:3", tmp_path, tmp_path)
    names = [path.name for path in Path(chosen.train).rglob("*.png")]
    assert names
    assert not [name for name in names if name.startswith("3_")]
    abnormal = list((Path(chosen.test) / "digit_3").iterdir())
    assert len(abnormal) == 183


@pytest.mark.parametrize("name", ["digits", "digits:x", "mnist:10"])
def test_a_digit_must_be_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^{name} names no abnormal digit"):
        open_data_set(name, tmp_path, tmp_path)


def test_missing_data_is_said(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"^mnist:0 needs MNIST's IDX files"):
        open_data_set("mnist:0", tmp_path, tmp_path)
    with pytest.raises(ArchiveError, match="^nothing is no data set"):
        open_data_set("nothing", tmp_path, tmp_path)


def test_mnist_in_tars(shared_data: Path, tmp_path: Path) -> None:
    import tarfile

    chosen = open_data_set("mnist:0", shared_data, tmp_path)
    with tarfile.open(chosen.test) as tar:
        names = tar.getnames()
    assert len([name for name in names if name.startswith("test/digit_0/")]) == 5923 + 980
    assert len(names) == 5923 + 10_000


def test_members_of_a_tar_are_labelled_for_the_benchmark(shared_data: Path, tmp_path: Path) -> None:
    chosen = open_data_set("mnist:8/100", shared_data, tmp_path)
    rows = labelled_rows(chosen.test)
    assert {row["abnormal"] for row in rows if row["label"] == "digit_8"} == {True}
    assert {row["abnormal"] for row in rows if row["label"] == "good"} == {False}
    # Sub-types by which the class-conditional detector learns.
    assert {row["label"] for row in labelled_rows(chosen.train)} == set(chosen.types)


def test_both_precisions_score_the_same_images(image_folder: Path, tmp_path: Path) -> None:
    values = {"image_size": 16, "channels": 1, "width": 4, "latent": 4, "epochs": 1}
    fit("ganomaly", str(image_folder / "train"), out=str(tmp_path / "m"), **values)
    exact, fast = precision(str(tmp_path / "m"), str(image_folder / "test"))
    assert exact["spearman"] == pytest.approx(1)
    assert fast["spearman"] > 0.9
    assert exact["images"] == fast["images"] == 16
    assert abs(exact["auroc"] - fast["auroc"]) < 0.2


def test_patches_and_whole_images_are_timed_on_the_same_inputs() -> None:
    settings = [*SMALL, "image_size=32", "patch.size=16"]
    whole, patched, mapped = patches("ganomaly", settings, rounds=1)
    assert whole["images"] * whole["image_size"] ** 2 == 512 * 16**2
    assert patched["images"] * patched["image_size"] ** 2 == 512 * 16**2
    assert whole["share"] == 1
    assert patched["share"] > 0
    assert whole["peak_mib"] <= patched["peak_mib"] <= mapped["peak_mib"]
    with pytest.raises(ConfigError, match="^ganomaly has no patches in these settings"):
        patches("ganomaly", SMALL, rounds=1)


def test_searches_at_once_reach_the_losses_of_searches_one_by_one(
    image_folder: Path, tmp_path: Path
) -> None:
    values = {"image_size": 16, "channels": 1, "width": 4, "latent": 4, "epochs": 2}
    keys = {**values, "search_steps": 100, "search_batch": 4}
    fit("anogan", str(image_folder / "train"), out=str(tmp_path / "m"), precision="float32", **keys)
    rows = search(str(tmp_path / "m"), str(image_folder / "test"), 2, 8)
    assert [row["images"] for row in rows] == [2, 2, 8, 8, 8]
    alone, frozen, all_steps, *tolerant = rows
    assert alone["steps"] == frozen["steps"] == 100
    assert frozen["final_loss"] == pytest.approx(alone["final_loss"])
    assert all_steps["final_loss"] <= 1.01 * alone["final_loss"]
    assert all_steps["steps"] == 100
    assert all(row["steps"] <= 100 for row in tolerant)
    fit("ganomaly", str(image_folder / "train"), out=str(tmp_path / "g"), **values)
    with pytest.raises(ConfigError, match="is a ganomaly: give a model of anogan"):
        search(str(tmp_path / "g"), str(image_folder / "test"), 2, 8)
