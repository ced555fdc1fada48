"""Benchmarks of whole jobs, large tables, and commands."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from pipelines.cli.benchmark.program import DATA, Anomalib, Data, benchmarks
from pipelines.cli.options import Debug, Out, Workers, words


@benchmarks.command()
def scoring(
    out: Out,
    model: Annotated[
        str | None, typer.Option(help="A saved model. Default: an untrained GANomaly.")
    ] = None,
    num: Annotated[int, typer.Option(min=64, help="Number of 256-pixel JPEGs to make.")] = 5_000,
    num_rows: Annotated[
        int,
        typer.Option("--rows", min=0, help="Rows for the listing and memory tests; 0 skips them."),
    ] = 1_000_000,
    data: Data = DATA,
    workers: Workers = None,
    rounds: Annotated[int, typer.Option(min=1, help="Timed rounds; the median counts.")] = 3,
    s3: Annotated[
        str | None, typer.Option(help="s3:// prefix to copy the images to and score from.")
    ] = None,
    anomalib: Anomalib = None,
    engines: Annotated[
        str, typer.Option(help="Engines to score with, comma-separated; see ganad score --engine.")
    ] = "eager",
) -> None:
    """Measure scoring against the limits of the machine: each stage, listing, driver memory.

    Example: ganad benchmark scoring --out bench/scoring
    """
    from pipelines.benchmark.scoring import as_markdown
    from pipelines.benchmark.scoring import scoring as run

    figures = run(
        out,
        data,
        model=model,
        num=num,
        num_rows=num_rows,
        workers=workers,
        rounds=rounds,
        s3=s3,
        anomalib=anomalib,
        engines=words(engines),
    )
    print(as_markdown(figures))


@benchmarks.command()
def rows(
    out: Out,
    nums: Annotated[
        str, typer.Option("--rows", help="Numbers of rows, comma-separated.")
    ] = "1_000_000,100_000_000",
) -> None:
    """Measure what tables of many rows cost to resume, query and compact, no image opened.

    Example: ganad benchmark rows --out bench/rows
    """
    from pipelines.benchmark.large.rows import as_markdown
    from pipelines.benchmark.large.rows import rows as run

    print(as_markdown(run(out, [int(num) for num in words(nums)])))


@benchmarks.command()
def browse(
    out: Out,
    rows: Annotated[int, typer.Option(min=1000, help="Rows of the synthetic table.")] = 1_000_000,
    rounds: Annotated[int, typer.Option(min=1, help="Timed requests of each page.")] = 5,
    debug: Debug = False,
) -> None:
    """Measure the response time of ganad browse on a large table.

    Example: ganad benchmark browse --out bench
    """
    from pipelines.benchmark.browse import browse as run

    print(run(out, rows, rounds))


@benchmarks.command()
def start(
    rounds: Annotated[int, typer.Option(min=1, help="Jobs; the median counts.")] = 3,
    workers: Workers = None,
    model: Annotated[
        str | None, typer.Option(help="A saved model. Default: an untrained GANomaly.")
    ] = None,
) -> None:
    """Where the seconds at the start and the end of a scoring job go, on a small table.

    Example: ganad benchmark start
    """
    from pipelines.benchmark.job_start import job_start as run
    from pipelines.console.output import write_table

    rows = run(rounds, workers, model)
    write_table(list(rows[0]), rows, sys.stdout)


@benchmarks.command()
def startup(
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each command; median.")] = 3,
) -> None:
    """Measure processor time, wall time and peak memory of commands at start-up.

    Example: ganad benchmark startup
    """
    from pipelines.benchmark.startup import startup as run
    from pipelines.console.output import write_table

    rows = run(rounds)
    write_table(list(rows[0]), rows, sys.stdout)
