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
        help="Folders, globs, s3:// prefixes, .tar or .parquet shards, lists of URIs (.csv or "
        ".parquet), or one manifest."
    ),
]
Out = Annotated[str, typer.Option("--out", help="Folder or s3:// prefix to write to.")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Number of workers. Default: one per core or GPU.")
]
Gpu = Annotated[
    bool | None, typer.Option("--gpu/--no-gpu", help="Use GPUs. Default: if there are any.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan as JSON; do nothing.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and messages of Ray.")]


def words(text: str) -> list[str]:
    """Split a comma-separated text."""
    return [word.strip() for word in text.split(",") if word.strip()]


def split_models(typed: Sequence[str]) -> tuple[list[str], str]:
    """MODEL... SOURCE -> (models, source). Raises ConfigError for a single word, and for an image
    or shard in place of a model, which happens if the shell expands an unquoted glob."""
    if len(typed) < 2:
        raise ConfigError(
            f"{' '.join(typed)} is only one of MODEL and SOURCE: type ganad score MODEL SOURCE "
            f"--out TABLE"
        )
    *models, source = typed
    for model in models:
        if is_image(model) or model.lower().endswith((".tar", ".parquet", ".csv")):
            folder, _, name = model.rpartition("/")
            glob = f"{folder}{'/' if folder else ''}*.{name.rpartition('.')[2]}"
            raise ConfigError(
                f"{model} is a file, not a saved model: if it comes from a glob, put the glob in "
                f"quotes, as in '{glob}', so that the shell does not expand it"
            )
    return models, source


def parse_workers(typed: str) -> int | tuple[int, int]:
    """Parse 4 as 4, and 1:4 as (1, 4), the minimum and the maximum. Raises ConfigError."""
    least, colon, most = typed.partition(":")
    numbers = [int(word) for word in (least, most) if word.isascii() and word.isdecimal()]
    if not colon and len(numbers) == 1 and numbers[0] >= 1:
        return numbers[0]
    if colon and len(numbers) == 2 and 1 <= numbers[0] <= numbers[1]:
        return numbers[0], numbers[1]
    raise ConfigError(f"--workers {typed} is not a number of workers: give 4, or 1:4 for 1 to 4")
