"""--dry-run prints the plan as JSON and writes nothing."""

import json
from pathlib import Path
from typing import Any

import pytest

from ganad.errors import ConfigError, ModelError
from pipelines.cli.app import app


def plan(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    app([*words, "--dry-run"], standalone_mode=False)
    planned: dict[str, Any] = json.loads(capsys.readouterr().out)
    return planned


def test_of_a_training(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model"
    words = ["train", "ganomaly", str(image_folder), "--out", str(out), "--set", "epochs=3"]
    planned = plan([*words, "--workers", "1:4"], capsys)
    assert planned["config"]["epochs"] == 3
    assert planned["workers"] == [1, 4]
    assert planned["out"] == str(out)
    assert not out.exists()


def test_of_a_training_for_each_category(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("cable", "bottle"):
        (tmp_path / "parts" / name).mkdir(parents=True)
    words = ["train", "vae", str(tmp_path / "parts"), "--out", str(tmp_path / "models"), "--each"]
    planned = plan(words, capsys)
    assert planned["models"] == {
        name: str(tmp_path / "models" / name) for name in ("bottle", "cable")
    }
    assert not (tmp_path / "models").exists()


def test_of_a_scoring(
    model: str, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "table"
    planned = plan(["score", model, str(image_folder), "--out", str(out)], capsys)
    info = json.loads((Path(model) / "model.json").read_text())
    assert planned["models"] == [info["id"]]
    assert not out.exists()


def test_wrong_words_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="did you mean epochs"):
        plan(["train", "ganomaly", "parts", "--out", "model", "--set", "epoch=3"], capsys)
    with pytest.raises(ModelError, match="not a saved model"):
        plan(["score", str(tmp_path), "parts", "--out", "table"], capsys)
