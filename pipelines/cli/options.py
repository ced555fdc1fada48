"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

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
