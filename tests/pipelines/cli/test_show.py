"""ganad show: the essentials of a model, and of a score table, finished or not."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from ganad.errors import ModelError
from ganad.scores.records import read_runs
from pipelines.cli.show import show
from pipelines.console.progress import duration
from pipelines.score.run import score
from tests.pipelines.small_model import SMALL


@pytest.fixture(scope="module")
def table(model: str, image_folder: Path, tmp_path_factory: Any) -> Path:
    """56 images of which 3 have no score; a name with an escape sequence is among them."""
    folder = tmp_path_factory.mktemp("shown")
    archive = folder / "archive"
    shutil.copytree(image_folder, archive)
    (archive / "test" / "empty.png").write_bytes(b"")
    (archive / "test" / "also-empty.png").write_bytes(b"")
    (archive / "aaa\x1b[31m.png").write_bytes(b"no image")
    score([model], [str(archive)], str(folder / "table"), gpu=False, workers=1)
    return folder / "table"


def shown(folder: object, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    show(str(folder))
    return capsys.readouterr().out


def test_a_finished_table(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = shown(table, capsys)
    assert "finished at 20" in said
    assert "59 images, 56 scored, 3 failed" in said
    assert "2 the file is empty" in said
    assert "1 not an image, such as: not an image: neither JPEG" in said
    assert said.count("59 images in ") == 2  # decoding, and the one model
    assert "images/s" in said
    assert "wrong" not in said
    assert "\x1b" not in said


def test_an_unfinished_table(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "table"
    shutil.copytree(table, copy)
    shutil.rmtree(copy / "_runs")
    assert "unfinished: 59 of 59 images; run the same ganad score" in shown(copy, capsys)


def test_the_run_of_a_model_has_the_work_in_it(table: Path) -> None:
    (run,) = read_runs(str(table)).values()
    work = run.work
    assert work["stages"]["decode"]["images"] == 59
    assert work["stages"]["decode"]["seconds"] > 0
    assert work["stages"][f"score {run.model}"]["images"] == 59
    assert sum(part["images"] for part in work["slowest"]) == 59
    assert (work["retries"], work["restarts"]) == ({}, 0)
    assert run.failure_kinds == {"the file is empty": 2, "not an image": 1}


def test_a_model_shows_what_differs_from_the_usual(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = shown(model, capsys)
    (line,) = [line for line in said.splitlines() if line.startswith("config ")]
    keys = {word.split("=")[0] for word in line.removeprefix("config").split(",")}
    assert {key.strip() for key in keys} == {*SMALL}
    assert "epoch 2" in said
    assert "num train" in said
    assert "threshold at" not in said  # seven images are too few for one
    assert "calibrated on 7 images" in said


def test_what_is_neither(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a saved model"):
        show(str(tmp_path))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.123, "0.12 s"),
        (59.7, "1 min 0 s"),
        (3_599, "59 min 59 s"),
        (7_500, "2 h 5 min"),
        (200_000, "2 d 7 h"),
    ],
)
def test_lengths_of_time(seconds: float, words: str) -> None:
    assert duration(seconds) == words
