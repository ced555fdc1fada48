"""The typer application of ganad: every command has --debug, and no argument may be empty."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

import typer
from typer.core import TyperCommand

from ganad.errors import ConfigError
from pipelines.cli.options import Debug


class Command(TyperCommand):
    """Refuses empty arguments and options, but those that are empty by default. An empty path would
    be the current folder, and comes from a variable of a script that is not set."""

    def parse_args(self, context: Any, args: list[str]) -> list[str]:
        """Raises ConfigError for an empty argument."""
        rest = super().parse_args(context, args)
        for parameter in self.params:
            value = context.params.get(parameter.name or "")
            values = value if isinstance(value, list | tuple) else [value]
            if isinstance(value, list | tuple) and not context.allow_interspersed_args:
                continue  # the words of another command, which looks at them itself
            empty = any(isinstance(each, str) and not each.strip() for each in values)
            if empty and parameter.default != "":
                shown = parameter.opts[0]
                shown = shown if shown.startswith("-") else parameter.metavar or shown.upper()
                raise ConfigError(
                    f"{shown} is empty (is a variable of the script not set?): give it a value, or "
                    f"leave it out"
                )
        return rest


class Program(typer.Typer):
    """Makes every command a Command, and adds --debug to those that do not take it themselves;
    pipelines.cli.app.main looks for it among the words typed."""

    def command(self, *args: Any, **options: Any) -> Callable[[Any], Any]:
        """Like typer's, a decorator."""
        register = super().command(*args, **{"cls": Command, **options})

        def add(function: Any) -> Any:
            register(_with_debug(function))
            return function

        return add


def _with_debug(function: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(function, eval_str=True)
    if "debug" in signature.parameters:
        return function

    @wraps(function)
    def command(*args: Any, debug: bool = False, **options: Any) -> Any:
        return function(*args, **options)

    parameter = inspect.Parameter(
        "debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Debug
    )
    parameters = [*signature.parameters.values(), parameter]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {**function.__annotations__, "debug": Debug}
    return command
