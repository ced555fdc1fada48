"""The typer application of ganad: adds --debug to every command and rejects empty arguments."""

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
    """Rejects empty arguments and options, except those that are empty by default. An empty path
    usually comes from an unset variable of a script, and would mean the current folder."""

    def parse_args(self, context: Any, args: list[str]) -> list[str]:
        """Parse arguments; raises ConfigError for an empty one."""
        rest = super().parse_args(context, args)
        for parameter in self.params:
            value = context.params.get(parameter.name or "")
            values = value if isinstance(value, list | tuple) else [value]
            if isinstance(value, list | tuple) and not context.allow_interspersed_args:
                continue  # the arguments of another command, which checks them itself
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
    """Makes every command a Command, and adds --debug to those that lack it;
    pipelines.cli.app.main searches the command line for it."""

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
