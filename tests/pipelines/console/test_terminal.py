"""Text from outside on its way to a terminal."""

import io
import json
import re
from pathlib import Path

import pytest

from pipelines.console import progress
from pipelines.console.output import write_csv, write_facts, write_json, write_lines, write_table
from pipelines.console.terminal import terminal

ROOT = Path(__file__).parents[3]
EVIL = "a\x1b[2J\x9b31m\x01\u202e\ud800z"
CLEANED = "a�[2J�31m���z"


def tables(out):
    write_table([EVIL], [{EVIL: EVIL}], out)
    write_table(["terms"], [{"terms": {EVIL: 1.0}}], out)
    write_table([f"{EVIL}{n}" for n in range(30)], [{f"{EVIL}{n}": [EVIL] for n in range(30)}], out)


@pytest.mark.parametrize(
    "write",
    [
        tables,
        lambda out: write_facts([(EVIL, EVIL)], out),
        lambda out: write_lines([EVIL], out),
        lambda out: terminal(out).print(EVIL),
        lambda out: terminal(out).rule(EVIL),
    ],
)
def test_headings_keys_and_cells_cannot_command_it(write):
    out = io.StringIO()
    write(out)
    assert CLEANED in out.getvalue()
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\ud800]", out.getvalue())


def test_messages_cannot_command_it_or_pretend_to_be_two(capsys):
    progress.say(f"ganad: {EVIL}\nganad: all is well")
    assert capsys.readouterr().err == f"ganad: {CLEANED}�ganad: all is well\n"


def test_styles_of_our_own_stay():
    out = io.StringIO()
    console = terminal(out)
    console._force_terminal = True
    console._color_system = 1
    console.print("plain", style="bold")
    assert out.getvalue() == "\x1b[1mplain\x1b[0m\n"


def test_json_is_the_same_data_without_what_a_terminal_obeys():
    out = io.StringIO()
    write_json([{EVIL[:-2]: EVIL[:-2]}], out)
    assert "\x9b" not in out.getvalue()
    assert json.loads(out.getvalue()) == [{EVIL[:-2]: EVIL[:-2]}]


def test_csv_is_cleaned_for_a_terminal_alone(monkeypatch):
    for is_terminal in (False, True):
        out = io.StringIO()
        monkeypatch.setattr(out, "isatty", lambda answer=is_terminal: answer)
        write_csv([EVIL], [{EVIL: EVIL}], out)
        assert ("\x1b" in out.getvalue()) != is_terminal


def test_no_other_console_is_made():
    modules = (ROOT / "pipelines").rglob("*.py")
    makers = [path.name for path in modules if "rich.console import" in path.read_text()]
    assert makers == ["terminal.py"]
