"""The typer application of ganad: every command has --debug."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

import typer

from pipelines.cli.options import Debug


class Program(typer.Typer):
    """Adds --debug to the commands that do not take it themselves; pipelines.cli.app.main looks
    for it among the words typed."""

    def command(self, *args: Any, **options: Any) -> Callable[[Any], Any]:
        """Like typer's, a decorator."""
        register = super().command(*args, **options)

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
