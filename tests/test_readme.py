"""What the README shows is what happens."""

import re
import shutil
from pathlib import Path

import pytest

from pipelines.cli.app import app

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_both_set_up_commands_are_shown() -> None:
    assert "pip install -e . && ganad demo" in README
    assert "pip install -e '.[test]' && pytest" in README


def test_the_notebook_lines_run(
    image_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    shutil.copytree(image_folder, tmp_path / "parts")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 16
    assert all(line.endswith("None") for line in lines)
    assert (tmp_path / "model" / "model.json").exists()


def test_every_command_is_in_the_readme() -> None:
    for command in app.registered_commands:
        name = command.name or command.callback.__name__  # type: ignore[union-attr]
        assert f"ganad {name}" in README, name


def test_every_flag_in_the_readme_exists() -> None:
    folder = Path(__file__).parents[1] / "pipelines"
    source = "".join(path.read_text() for path in sorted(folder.rglob("*.py")))
    own = re.sub(r"(?m)^ray .*$", "", README)  # commands of Ray have flags of their own
    for flag in set(re.findall(r"(--[a-z][a-z-]+)", own)) - {"--help"}:
        words = flag.removeprefix("--").replace("-", "_")
        assert f'"{flag}' in source or f"    {words}: " in source or f"/{flag}" in source, flag
