"""Commands that read score tables: ganad query, evaluate, compare, report, show."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from pipelines.cli.program import Program
from pipelines.console.progress import say
from pipelines.console.signals import stops_promptly

Format = Annotated[str, typer.Option("--format", help="Output: table, json or csv.")]
Memory = Annotated[
    str | None, typer.Option(help="Memory limit, such as 4GB. Default: half of all memory.")
]
Spill = Annotated[
    str | None,
    typer.Option(help="Limit of temporary disk space. Default: half of the free space."),
]


def add_commands(program: Program) -> None:
    """Add the commands to ganad."""
    for command in (query, evaluate, compare, report, show):
        program.command()(command)


@stops_promptly
def query(
    tables_and_sql: Annotated[
        list[str],
        typer.Argument(metavar="TABLE... [SQL]", help="Score tables, then SQL over `scores`."),
    ],
    top: Annotated[
        int | None, typer.Option(min=1, help="The K highest scores of each model.")
    ] = None,
    where: Annotated[str | None, typer.Option(help="SQL condition, such as p_value<0.01.")] = None,
    fdr: Annotated[
        float | None, typer.Option(metavar="Q", help="Images at a false discovery rate of Q.")
    ] = None,
    budget: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="About N images per model, by score.")
    ] = None,
    ensemble: Annotated[
        str | None, typer.Option(help="Combine the models' p-values: fisher, min or mean.")
    ] = None,
    with_: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="FILE", help="CSV, JSON or Parquet file to use as a view."),
    ] = None,
    copy_to: Annotated[str | None, typer.Option(help="Folder to copy the images to.")] = None,
    link_to: Annotated[str | None, typer.Option(help="Folder for links to the images.")] = None,
    format_: Annotated[
        str, typer.Option("--format", help="Output: table, json, csv, parquet or arrow.")
    ] = "table",
    memory: Memory = None,
    spill: Spill = None,
) -> None:
    """Query score tables, with or without SQL.

    Each table is a view named after its folder; the first one is also named `scores`, and
    `verdicts` has what people said of its images in ganad browse.

    Example: ganad query scores --top 10 --where "p_value < 0.01"
    """
    from ganad.storage.database import Limits
    from pipelines.cli.query import query as run
    from pipelines.cli.query import split_words

    tables, sql = split_words(tables_and_sql)
    run(
        tables,
        sql,
        top=top,
        where=where,
        fdr=fdr,
        budget=budget,
        ensemble=ensemble,
        files=with_ or [],
        copy_to=copy_to,
        link_to=link_to,
        format=format_,
        limits=Limits.parse(memory, spill),
    )


@stops_promptly
def evaluate(
    table: Annotated[str, typer.Argument(help="A score table of labelled images.")],
    labels: Annotated[str | None, typer.Option(help="CSV that replaces the labels.")] = None,
    format_: Format = "table",
    pixels: Annotated[
        bool, typer.Option("--pixels", help="Also compute pixel AUROC and AUPRO from masks.")
    ] = False,
    brightness: Annotated[
        bool | None,
        typer.Option(help="Compare with image brightness. Default: if images are few and local."),
    ] = None,
    cost: Annotated[
        str | None,
        typer.Option(metavar="FP:FN", help="Costs of a false alarm and of a miss, such as 1:20."),
    ] = None,
) -> None:
    """Evaluate the models of a labelled table, best first, with trivial baselines.

    Example: ganad evaluate scores
    """
    from pipelines.cli.evaluate import evaluate as run

    run(table, labels=labels, format=format_, pixels=pixels, brightness=brightness, cost=cost)


@stops_promptly
def compare(
    first: Annotated[str, typer.Argument(metavar="TABLE_A", help="A score table.")],
    second: Annotated[str, typer.Argument(metavar="TABLE_B", help="A later score table.")],
    bound: Annotated[
        float | None,
        typer.Option(metavar="D", help="Largest distance, 0 to 1; beyond it, exit with status 3."),
    ] = None,
    format_: Format = "table",
) -> None:
    """Compare the scores of two tables, such as two nights, by model and folder.

    Example: ganad compare scores-monday scores-tuesday --bound 0.1
    """
    from pipelines.cli.compare import compare as run

    raise typer.Exit(run(first, second, bound=bound, format=format_))


@stops_promptly
def report(
    table: Annotated[str, typer.Argument(help="A score table.")],
    out: Annotated[str, typer.Option("--out", help="HTML file to write.")],
    num_worst: Annotated[int, typer.Option("--top", min=1, help="Images per model.")] = 24,
) -> None:
    """Write an HTML report: most anomalous images, heat maps, charts, metrics, failures.

    Example: ganad report scores --out report.html
    """
    from pipelines.cli.report import report as run

    run(table, out, num_worst=num_worst)
    say(f"wrote {out}")


@stops_promptly
def show(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="A saved model or score table.")],
    ddl: Annotated[
        str | None,
        typer.Option(
            metavar="ENGINE",
            help="Print SQL that registers the table in athena, trino, spark or duckdb instead.",
        ),
    ] = None,
) -> None:
    """Summarise a model (settings, training, calibration) or a table (progress, errors, speed).

    Example: ganad show scores
    """
    if ddl is not None:
        from ganad.scores.ddl import ddl as statements
        from ganad.scores.table import ScoreTable
        from pipelines.console.output import write_statements

        return write_statements(statements(ScoreTable(folder), ddl), sys.stdout)
    from pipelines.cli.show import show as run

    run(folder)
