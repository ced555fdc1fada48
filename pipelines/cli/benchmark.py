"""The `ganad benchmark` commands. Each parses, calls one function and prints."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.options import Debug, Out, Workers, words
from pipelines.cli.program import Program

benchmarks = Program(help="Measure ganad itself.", no_args_is_help=True)


@benchmarks.command()
def accuracy(
    out: Out,
    detectors: Annotated[str, typer.Option(help="Comma-separated names.")],
    data_sets: Annotated[
        str, typer.Option("--on", help="digits:C, mnist:C, magnetic_tile, folders; commas between.")
    ],
    seeds: Annotated[str, typer.Option(help="Comma-separated numbers.")] = "0,1,2",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="One config key, such as epochs=30.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Settings by detector: digits, mnist, tile or a TOML file.")
    ] = None,
    normal: Annotated[
        str, typer.Option(help="Labels of folders' normal test images, comma-separated.")
    ] = "",
    cores: Annotated[int, typer.Option(min=1, help="Threads of each run.")] = 1,
    data: Annotated[str, typer.Option(help="Folder of downloaded image sets.")] = "../shared/data",
    debug: Debug = False,
) -> None:
    """AUROC and AUPR of detectors, mean ± std over seeds, beside trivial ones. Runs resume.

    Example: ganad benchmark accuracy --detectors ganomaly --on digits:0,digits:8 --out bench
    """
    from pipelines.benchmark.accuracy import accuracy as run

    try:
        run(
            out,
            words(detectors),
            words(data_sets),
            [int(seed) for seed in words(seeds)],
            set_ or [],
            data,
            normal=words(normal),
            budget=budget,
            cores=cores,
            debug=debug,
        )
    finally:  # with the runs that failed
        if (Path(out) / "accuracy.md").exists():
            print((Path(out) / "accuracy.md").read_text())


@benchmarks.command()
def training(
    source: Annotated[str, typer.Argument(help="Normal images.")],
    steps: Annotated[int, typer.Option(min=1, help="Steps of a turn.")] = 4,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each loop.")] = 5,
    cores: Annotated[int, typer.Option(min=1, help="Threads of each loop.")] = 2,
    workers: Annotated[
        str, typer.Option(help="Of the jobs on Ray, comma-separated; none: no jobs.")
    ] = "1,2",
    job_steps: Annotated[
        int, typer.Option(min=1, help="Steps of each job; there is a checkpoint every 200.")
    ] = 200,
    anomalib: Annotated[
        str | None, typer.Option(help="A python that has anomalib, to measure it beside.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Speed of GANomaly's training: ganad's loop, plain PyTorch, anomalib; Ray's share of it.

    Example: ganad benchmark training parts/train
    """
    from pipelines.benchmark.training import training as run
    from pipelines.console.output import write_table

    jobs = tuple(int(word) for word in words(workers) if word != "none")
    rows = run(
        source,
        steps=steps,
        rounds=rounds,
        cores=cores,
        workers=jobs,
        job_steps=job_steps,
        anomalib=anomalib,
        debug=debug,
    )
    write_table(list(rows[0]), rows, sys.stdout)


@benchmarks.command()
def precision(
    model: Annotated[str, typer.Argument(help="A saved model.")],
    source: Annotated[str, typer.Argument(help="Images, with labels if AUROC is wanted.")],
) -> None:
    """Score the same images in float32 and bfloat16: speed, AUROC and rank correlation.

    Example: ganad benchmark precision model parts/test
    """
    from pipelines.benchmark.precision import precision as run
    from pipelines.console.output import write_table

    rows = run(model, source)
    write_table(list(rows[0]), rows, sys.stdout)


@benchmarks.command()
def search(
    model: Annotated[str, typer.Argument(help="A saved model of anogan.")],
    source: Annotated[str, typer.Argument(help="Images to search for.")],
    alone: Annotated[int, typer.Option(min=1, help="Images searched one by one.")] = 8,
    together: Annotated[int, typer.Option(min=1, help="Images searched at once.")] = 256,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of a search. Left out: the model's.")
    ] = None,
) -> None:
    """AnoGAN's search, many images at once against one by one: speed and the loss reached.

    Example: ganad benchmark search model parts/test
    """
    from pipelines.benchmark.search import search as run
    from pipelines.console.output import write_table

    rows = run(model, source, alone, together, steps)
    write_table(list(rows[0]), rows, sys.stdout)


@benchmarks.command()
def patches(
    detector: Annotated[str, typer.Argument(help="Name of a method with networks.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="One config key, such as patch.size=64.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Timed repetitions.")] = 5,
) -> None:
    """Pixels per second with patches and without, the same networks side by side.

    Example: ganad benchmark patches ganomaly --set image_size=256 --set patch.size=64
    """
    from pipelines.benchmark.patches import patches as run
    from pipelines.console.output import write_table

    rows = run(detector, set_ or [], rounds)
    write_table(list(rows[0]), rows, sys.stdout)


@benchmarks.command()
def scoring(
    out: Out,
    model: Annotated[
        str | None, typer.Option(help="A saved model. Default: an untrained GANomaly.")
    ] = None,
    num: Annotated[int, typer.Option(min=64, help="JPEGs of 256 pixels to make.")] = 5_000,
    num_rows: Annotated[
        int,
        typer.Option("--rows", min=0, help="Rows of the archive for listing and memory; 0: none."),
    ] = 1_000_000,
    data: Annotated[str, typer.Option(help="Folder of downloaded image sets.")] = "../shared/data",
    workers: Workers = None,
    rounds: Annotated[int, typer.Option(min=1, help="Of which the median is told.")] = 3,
    s3: Annotated[
        str | None, typer.Option(help="s3:// prefix to copy the images to and score them from.")
    ] = None,
    anomalib: Annotated[
        str | None, typer.Option(help="A python that has anomalib, to measure it beside.")
    ] = None,
) -> None:
    """Scoring beside what the machine can do: speed of each stage, listing, memory of the driver.

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
    )
    print(as_markdown(figures))


@benchmarks.command()
def browse(
    out: Out,
    rows: Annotated[int, typer.Option(min=1000, help="Images of the synthetic table.")] = 1_000_000,
    rounds: Annotated[int, typer.Option(min=1, help="Times each page is asked for.")] = 5,
    debug: Debug = False,
) -> None:
    """Seconds until a page of ganad browse is there, over a table of many rows.

    Example: ganad benchmark browse --out bench
    """
    from pipelines.benchmark.browse import browse as run

    print(run(out, rows, rounds))


@benchmarks.command()
def startup(
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each; the median counts.")] = 3,
) -> None:
    """Processor time, wall time and peak memory of the commands that need no network.

    Example: ganad benchmark startup
    """
    from pipelines.benchmark.startup import startup as run
    from pipelines.console.output import write_table

    rows = run(rounds)
    write_table(list(rows[0]), rows, sys.stdout)


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
