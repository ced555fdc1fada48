"""What the `ganad benchmark` commands share: their group, and options that several take."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cli.program import Program

DATA = "../shared/data"
Data = Annotated[str, typer.Option(help="Folder of downloaded image sets.")]
On = Annotated[
    str,
    typer.Option("--on", help="digits:C, mnist:C, magnetic_tile or folders, comma-separated."),
]
Seeds = Annotated[str, typer.Option(help="Seeds, comma-separated.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="One config key, such as epochs=30.")]
Normal = Annotated[
    str, typer.Option(help="Labels of normal test images in folders, comma-separated.")
]
Anomalib = Annotated[
    str | None, typer.Option(help="A python that has anomalib, to measure it beside.")
]
Cores = Annotated[int, typer.Option(min=1, help="Threads per run.")]

benchmarks = Program(help="Measure accuracy and speed of ganad.", no_args_is_help=True)
