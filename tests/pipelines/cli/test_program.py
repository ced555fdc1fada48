"""What every command does: no argument may be empty."""

import os
import re

import pytest
import typer

from ganad.errors import ConfigError
from pipelines.cli.app import app


def commands(group, words=()):
    """(words, command) of every command."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*words, name))
        else:
            yield (*words, name), command


COMMANDS = dict(commands(typer.main.get_command(app)))


def values(command):
    """The parameters that take a value, those that are empty by default left out."""
    return [
        parameter
        for parameter in command.params
        if not isinstance(parameter.default, bool)
        and not parameter.secondary_opts
        and parameter.default != ""
        and parameter.name != "command"  # of submit: the words of another command
    ]


def typed(words, wrong, empty):
    """A command line with one empty value, and `1` for all others that it needs."""
    options, arguments = [], []
    for parameter in values(COMMANDS[words]):
        value = empty if parameter is wrong else "1"
        if not parameter.opts[0].startswith("-"):
            arguments.append(value)
        elif parameter is wrong or parameter.required:
            options += [parameter.opts[0], value]
    return [*words, *options, *arguments]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("empty", ["", "  "])
def test_no_argument_may_be_empty(words, empty, tmp_path, monkeypatch):
    """An empty path was the current folder: a script with a variable that is not set listed it."""
    monkeypatch.chdir(tmp_path)
    for wrong in values(COMMANDS[words]):
        shown = wrong.opts[0]
        if not shown.startswith("-"):
            shown = wrong.metavar or shown.upper()
        # typer itself refuses it where a number is wanted.
        with pytest.raises((ConfigError, typer.BadParameter)) as caught:
            app(typed(words, wrong, empty), standalone_mode=False)
        if isinstance(caught.value, ConfigError):
            assert str(caught.value).startswith(shown)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (["index", "", "--out", "x"], "SOURCES"),
        (["index", "x", "", "--out", "x"], "SOURCES"),
        (["index", "x", "--out", ""], "--out"),
        (["index", "x", "--out", "x", "--labels", ""], "--labels"),
        (["train", "knn", "", "--out", "x"], "SOURCES"),
        (["train", "knn", "x", "--out", ""], "--out"),
        (["train", "knn", "x", "--out", "x", "--add-to", ""], "--add-to"),
        (["score", "", "x", "--out", "x"], "MODEL... SOURCE"),
        (["score", "x", "", "--out", "x"], "MODEL... SOURCE"),
        (["query", ""], "TABLE... [SQL]"),
        (["evaluate", "x", "--labels", ""], "--labels"),
        (["report", "x", "--out", ""], "--out"),
        (["show", ""], "FOLDER"),
        (["submit", "--", "index", "x", "--out", ""], "--out"),
    ],
)
def test_the_empty_argument_is_named(line, shown):
    with pytest.raises(ConfigError, match=f"^{re.escape(shown)} is empty"):
        app(line, standalone_mode=False)
