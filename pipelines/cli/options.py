"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from ganad.errors import ConfigError

Sources = Annotated[
    list[str],
    typer.Argument(help="Folders, globs, s3:// prefixes, .tar or .parquet files, or one manifest."),
]
Out = Annotated[str, typer.Option("--out", help="Folder or s3:// prefix to write to.")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Worker processes. Default: what the cluster has.")
]
Gpu = Annotated[
    bool | None, typer.Option("--gpu/--no-gpu", help="Default: GPUs where there are any.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan as JSON, do nothing.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show Ray's own messages and tracebacks.")]


def words(text: str) -> list[str]:
    """Typed with commas between them."""
    return [word.strip() for word in text.split(",") if word.strip()]


def parse_workers(typed: str) -> int | tuple[int, int]:
    """4 -> 4; 1:4 -> (1, 4), the least and the most. Raises ConfigError."""
    least, colon, most = typed.partition(":")
    numbers = [int(word) for word in (least, most) if word.isascii() and word.isdecimal()]
    if not colon and len(numbers) == 1 and numbers[0] >= 1:
        return numbers[0]
    if colon and len(numbers) == 2 and 1 <= numbers[0] <= numbers[1]:
        return numbers[0], numbers[1]
    raise ConfigError(f"--workers {typed} is not a number of workers: give 4, or 1:4 for 1 to 4")
