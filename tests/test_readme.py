"""What the documents show is what happens: commands, flags, links, Python and SQL."""

import re
import shutil
from pathlib import Path

import pytest
import typer.main

from ganad.scores.table import ScoreTable
from pipelines.cli.app import app
from tests.ganad.scores.make_table import small_table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DOCUMENTS = [
    ROOT / "README.md",
    *sorted(ROOT.glob("ganad/**/*.md")),
    *sorted(ROOT.glob("pipelines/**/*.md")),
]
FOREIGN = re.compile(r"(?m)^\s*(ray|pip|pytest|kubectl|python -m pytest) .*$")
"""Commands of others have flags of their own."""

documents = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT))
)


def commands() -> dict[str, set[str]]:
    """Name of each command, groups included ("benchmark scoring") -> its flags."""
    found: dict[str, set[str]] = {}

    def walk(command: object, name: str) -> None:
        if hasattr(command, "commands"):
            for child, inner in command.commands.items():
                walk(inner, f"{name} {child}".strip())
        flags = {
            flag
            for parameter in command.params  # type: ignore[attr-defined]
            for flag in (*parameter.opts, *parameter.secondary_opts)
        }
        found[name] = flags | {"--help"}

    walk(typer.main.get_command(app), "")
    return found


COMMANDS = commands()
FLAGS = set().union(*COMMANDS.values())


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


def test_the_sql_runs(tmp_path: Path) -> None:
    table = ScoreTable(small_table(tmp_path))
    (block,) = re.findall(r"```sql\n(.*?)```", README, re.DOTALL)
    statements = [one for one in block.split(";") if one.strip()]
    assert len(statements) == 4
    for statement in statements:
        assert len(table.query(statement)) > 0, statement


def test_every_command_is_in_the_readme() -> None:
    for name in COMMANDS:
        if name and " " not in name:
            assert f"ganad {name}" in README, name


@documents
def test_every_command_line_in_a_document_can_be_typed(document: Path) -> None:
    for line in re.findall(r"(?m)^ganad ([^#\n]*(?:\\\n[^\n]*)*)", document.read_text()):
        words = line.replace("\\\n", " ").split()
        if words[0] == "submit" and "--" in words:
            words = words[words.index("--") + 1 :]
        name = words[0] if words[0] in COMMANDS else ""
        if len(words) > 1 and f"{words[0]} {words[1]}" in COMMANDS:
            name = f"{words[0]} {words[1]}"
        assert name, f"ganad {line}"
        for word in words:
            flag = word.split("=")[0]
            if flag.startswith("--") and flag != "--":
                assert flag in COMMANDS[name] | COMMANDS["submit"], f"ganad {line}: {flag}"


@documents
def test_every_flag_in_a_document_exists(document: Path) -> None:
    own = FOREIGN.sub("", document.read_text())
    for flag in set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", own)):
        assert flag in FLAGS or flag in {"--now", "--node"}, flag


@documents
def test_every_link_in_a_document_leads_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", document.read_text()):
        if "://" not in link:
            assert (document.parent / link).exists(), link
