"""The commands that read score tables: ganad query, evaluate, compare, report, show."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from pipelines.cli.program import Program
from pipelines.console.progress import say
from pipelines.console.signals import stops_promptly

Format = Annotated[str, typer.Option("--format", help="table, json or csv.")]
Memory = Annotated[
    str | None, typer.Option(help="Memory a query may take, such as 4GB. Default: half of it all.")
]
Spill = Annotated[
    str | None,
    typer.Option(help="Disk a query may take for what exceeds its memory. Default: half the free."),
]


def add_commands(program: Program) -> None:
    """Put the commands under ganad."""
    for command in (query, evaluate, compare, report, show):
        program.command()(command)


@stops_promptly
def query(
    tables_and_sql: Annotated[
        list[str],
        typer.Argument(metavar="TABLE... [SQL]", help="Score tables, and SQL over `scores`."),
    ],
    top: Annotated[int | None, typer.Option(min=1, help="The K most anomalous images.")] = None,
    where: Annotated[str | None, typer.Option(help="SQL condition, such as p_value<0.01.")] = None,
    fdr: Annotated[
        float | None, typer.Option(metavar="Q", help="What a false discovery rate Q flags.")
    ] = None,
    budget: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="About N images, by a threshold.")
    ] = None,
    ensemble: Annotated[
        str | None, typer.Option(help="Ask the models as one: fisher, min or mean.")
    ] = None,
    with_: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="FILE", help="CSV, JSON or Parquet, as a view of its name."),
    ] = None,
    copy_to: Annotated[str | None, typer.Option(help="Folder for the answer's images.")] = None,
    link_to: Annotated[str | None, typer.Option(help="The same with links, no copies.")] = None,
    format_: Annotated[
        str, typer.Option("--format", help="table, json, csv, parquet or arrow.")
    ] = "table",
    memory: Memory = None,
    spill: Spill = None,
) -> None:
    """Ask score tables, in SQL or without.

    Each table is a view named after its folder, the first one `scores` as well.

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
    labels: Annotated[str | None, typer.Option(help="CSV of labels to use instead.")] = None,
    format_: Format = "table",
    pixels: Annotated[
        bool, typer.Option("--pixels", help="Also pixel AUROC and AUPRO, where masks exist.")
    ] = False,
    brightness: Annotated[
        bool | None,
        typer.Option(help="Compare with the images' brightness. Default: if few and local."),
    ] = None,
    cost: Annotated[
        str | None,
        typer.Option(metavar="FP:FN", help="Prices of a false alarm and a miss, such as 1:20."),
    ] = None,
) -> None:
    """Measure detection, models best first, each figure beside its trivial baseline.

    Example: ganad evaluate scores
    """
    from pipelines.cli.evaluate import evaluate as run

    run(table, labels=labels, format=format_, pixels=pixels, brightness=brightness, cost=cost)


@stops_promptly
def compare(
    first: Annotated[str, typer.Argument(metavar="TABLE_A", help="A score table.")],
    second: Annotated[str, typer.Argument(metavar="TABLE_B", help="A later one.")],
    bound: Annotated[
        float | None,
        typer.Option(metavar="D", help="Distance, 0 to 1, beyond which the exit status is 3."),
    ] = None,
    format_: Format = "table",
) -> None:
    """Compare the scores of two tables by model and folder, such as two nights.

    Example: ganad compare scores-monday scores-tuesday --bound 0.1
    """
    from pipelines.cli.compare import compare as run

    raise typer.Exit(run(first, second, bound=bound, format=format_))


@stops_promptly
def report(
    table: Annotated[str, typer.Argument(help="A score table.")],
    out: Annotated[str, typer.Option("--out", help="HTML file to write.")],
    num_worst: Annotated[int, typer.Option("--top", min=1, help="Images to show.")] = 24,
) -> None:
    """Write a page to look at: the worst images with their heat maps, histogram, failures.

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
            help="Print the statements for a table in athena, trino, spark or duckdb instead.",
        ),
    ] = None,
) -> None:
    """What a model was trained on and how it is calibrated; how far a table is, what was slow.

    Example: ganad show scores
    """
    if ddl is not None:
        from ganad.scores.ddl import ddl as statements
        from ganad.scores.table import ScoreTable
        from pipelines.console.output import write_statements

        return write_statements(statements(ScoreTable(folder), ddl), sys.stdout)
    from pipelines.cli.show import show as run

    run(folder)
