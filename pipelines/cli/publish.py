"""Commands for other programs: ganad compact, ganad register and ganad export."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cli.program import Program
from pipelines.console.progress import say
from pipelines.console.signals import stops_promptly


def add_commands(program: Program) -> None:
    """Add the commands to ganad."""
    for command in (compact, register, export):
        program.command()(command)


@stops_promptly
def compact(
    table: Annotated[str, typer.Argument(help="A score table.")],
    mb: Annotated[int, typer.Option(min=1, help="Minimum size of a large file in MB.")] = 128,
) -> None:
    """Merge the small files of a table into large ones, sorted by score.

    If it is stopped, run it again to continue. Other engines should not read the table at the same
    time.

    Example: ganad compact scores
    """
    from ganad.scores.compact import compact as run

    done = run(table, mb * 2**20, lambda num: say(f"{num:,} rows merged"))
    say(f"{table}: {done.before:,} files became {done.after:,}")


@stops_promptly
def register(
    table: Annotated[str, typer.Argument(help="A score table.")],
    catalog: Annotated[
        str, typer.Option(metavar="URI", help="Iceberg catalog: http(s)://, sqlite:///, …")
    ],
    name: Annotated[
        str | None,
        typer.Option(metavar="NAMESPACE.TABLE", help="Name to use. Default: ganad.<folder>."),
    ] = None,
) -> None:
    """Register a table in an Iceberg catalog, without copying its files.

    Run it again after scoring or compacting, to bring the catalog up to date.

    Example: ganad register s3://parts/scores --catalog http://catalog:8181 --name night.scores
    """
    from ganad.scores.iceberg import register as run

    done = run(table, catalog, name)
    say(f"{done.name}: {done.num_files:,} files registered, {done.num_added:,} of them now")


@stops_promptly
def export(
    model: Annotated[str, typer.Argument(help="A saved model.")],
    out: Annotated[str, typer.Option("--out", help="File to write: .pt2 or .onnx.")],
    format_: Annotated[
        str | None,
        typer.Option("--format", help="torch or onnx. Default: by the ending of the file."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(help="Images to compare scores on. Default: those of the training."),
    ] = None,
) -> None:
    """Write a model as one file that torch or ONNX Runtime runs without ganad.

    The file is written only if it gives the scores of the model.

    Example: ganad export model --out model.onnx
    """
    from ganad.export import export as run

    done = run(model, out, format_, source)
    batch = "any number of images" if done.batch is None else "one image"
    say(f"{done.out}: takes {batch} at a time, gives {' and '.join(done.outputs)}")
    say(
        f"compared with the model on {done.compared}: scores differ by at most "
        f"{done.agreement.score_difference:.1g} of their spread"
    )
