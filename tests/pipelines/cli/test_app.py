"""The command line as a stranger types it: help, and one clear line for each wrong input."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ganad.detectors import DETECTORS
from ganad.scores.table import SCHEMA
from pipelines.cli.app import app, main

COMMANDS = sorted(
    command.name or command.callback.__name__  # type: ignore[union-attr]
    for command in app.registered_commands
)


def typed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a command line."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    captured = capsys.readouterr()
    return int(stopped.value.code or 0), captured.out, captured.err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = typed([command, "--help"], capsys)
    assert status == 0
    assert f"Example: ganad {command}" in " ".join(out.split())


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = typed(["--help"], capsys)
    assert status == 0
    assert all(re.search(rf"^ *{command}\b", out, re.MULTILINE) for command in COMMANDS)


def test_detectors_are_listed_with_their_papers(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = typed(["detectors"], capsys)
    assert status == 0
    assert all(name in out for name in DETECTORS)


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    """Folders that are wrong in different ways."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "readme.txt").write_text("hello")
    (tmp_path / "images").mkdir()
    for number in range(4):
        Image.new("L", (16, 16), number * 20).save(tmp_path / "images" / f"{number}.png")
    (tmp_path / "table" / "model=x-1").mkdir(parents=True)
    row = {"image_id": "a", "uri": "a.png", "name": "a.png", "score": 1.0}
    table = pa.Table.from_pylist([row], schema=SCHEMA)
    pq.write_table(table, tmp_path / "table" / "model=x-1" / "part-000000.parquet")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "training").mkdir()
    names = ("empty", "texts", "images", "table", "half", "absent", "out")
    return {name: str(tmp_path / name) for name in names}


WRONG = [
    ("train ganomaly {absent} --out {out}", "{absent}", "no such|does not exist"),
    ("train ganomaly {empty} --out {out}", "{empty}", "empty"),
    ("train ganomaly {texts} --out {out}", "{texts}", "none of its 1 files is an image"),
    ("train ganomali {images} --out {out}", "ganomali", "did you mean ganomaly"),
    ("train gaussien {images} --out {out}", "gaussien", "did you mean gaussian"),
    ("train ganomaly {images} --out {out} --set epoch=3", "epoch", "did you mean epochs"),
    ("train ganomaly {images} --out {out} --set epochs", "--set epochs", "key=value"),
    ("train ganomaly {images} --out {out} --set epochs=0", "epochs=0", "greater than"),
    ("train ganomaly {images} --out {out} --set image_size=48", "image_size=48", "16, 32, 64"),
    ("train ganomaly {images} --out {out} --config {absent}", "--config", "does not exist"),
    (
        "train gaussian {images} --out {out} --set backbone.name=efficientnet_b99",
        "backbone.name",
        "efficientnet_b",
    ),
    (
        "train gaussian {images} --out {out} --set backbone.weights={absent}",
        "backbone.weights",
        "absent",
    ),
    ("score {absent} {images} --out {out}", "{absent}", "ganad train"),
    ("score {images} {images} --out {out}", "{images}", "not a saved model"),
    ("score {half} {images} --out {out}", "{half}", "run the same train command again"),
    ("score {images} --out {out}", "{images}", "MODEL SOURCE"),
    ("show {empty}", "{empty}", "not a saved model"),
    ("query {absent} --top 3", "{absent}", "."),
    ("query {images} --top 3", "{images}", "table"),
    ("evaluate {texts}", "{texts}", "table"),
    ("report {texts} --out {out}.html", "{texts}", "table"),
    ("report {table} --out {out}", "--out", "ends in .html"),
    ("query {table} SELEC", "SELEC", "syntax|SELECT"),
    ("query {table} --top 3 --where nothing=1", "nothing", "column"),
    ("index {absent} --out {out}", "{absent}", "."),
]


@pytest.mark.parametrize(("line", "begins", "says"), WRONG)
def test_wrong_input_gets_one_clear_line(
    line: str,
    begins: str,
    says: str,
    places: dict[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, out, err = typed([word.format(**places) for word in line.split()], capsys)
    lines = [text for text in err.splitlines() if text.startswith("ganad: ")]
    assert status == 1, err
    assert len(lines) == 1, err
    assert "Traceback" not in err
    message = lines[0].removeprefix("ganad: ")
    assert begins.format(**places) in message.split(":")[0] + message[:120], message
    assert re.search(says, message), message
    assert "defect" not in message
    assert not out.strip()


def test_s3_without_credentials_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], s3: Any
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    status, _, err = typed(["index", "s3://bucket/images", "--out", "unused"], capsys)
    assert status == 1
    assert re.search(r"^ganad: s3://bucket/images.*credentials", err, re.MULTILINE)


def test_python_m_pipelines_is_the_same_program() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "pipelines", "--version"], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == __import__("ganad").__version__
