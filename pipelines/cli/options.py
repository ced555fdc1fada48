"""Arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from ganad.archive.masks import is_image
from ganad.errors import ConfigError

Sources = Annotated[
    list[str],
    typer.Argument(
        help="Folders, globs, s3:// prefixes, .tar or .parquet files, lists of URIs (.csv or "
        ".parquet), or one manifest."
    ),
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


def split_models(typed: Sequence[str]) -> tuple[list[str], str]:
    """MODEL... SOURCE -> (models, source). Raises ConfigError for one word alone, and for a file of
    an archive where a model is wanted, as the shell makes of a glob that is not quoted."""
    if len(typed) < 2:
        raise ConfigError(
            f"{' '.join(typed)} is one word where MODEL and SOURCE are wanted: type ganad score "
            f"MODEL SOURCE --out TABLE"
        )
    *models, source = typed
    for model in models:
        if is_image(model) or model.lower().endswith((".tar", ".parquet", ".csv")):
            folder, _, name = model.rpartition("/")
            glob = f"{folder}{'/' if folder else ''}*.{name.rpartition('.')[2]}"
            raise ConfigError(
                f"{model} is not a saved model but a file: if it comes from a glob, put that in "
                f"quotes, as in '{glob}', or the shell makes many words of it"
            )
    return models, source


def parse_workers(typed: str) -> int | tuple[int, int]:
    """4 -> 4; 1:4 -> (1, 4), the least and the most. Raises ConfigError."""
    least, colon, most = typed.partition(":")
    numbers = [int(word) for word in (least, most) if word.isascii() and word.isdecimal()]
    if not colon and len(numbers) == 1 and numbers[0] >= 1:
        return numbers[0]
    if colon and len(numbers) == 2 and 1 <= numbers[0] <= numbers[1]:
        return numbers[0], numbers[1]
    raise ConfigError(f"--workers {typed} is not a number of workers: give 4, or 1:4 for 1 to 4")
