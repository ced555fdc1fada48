"""The `ganad benchmark` commands. Each parses its arguments, calls one function and prints."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.cli.options import Debug, Out, Workers, words
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


@benchmarks.command()
def accuracy(
    out: Out,
    detectors: Annotated[str, typer.Option(help="Names of detectors, comma-separated.")],
    data_sets: On,
    seeds: Seeds = "0,1,2",
    set_: Set = None,
    budget: Annotated[
        str | None, typer.Option(help="Settings by detector: digits, mnist, tile or a TOML file.")
    ] = None,
    normal: Normal = "",
    cores: Cores = 1,
    pixels: Annotated[bool, typer.Option(help="Compare heat maps with masks, too.")] = False,
    data: Data = DATA,
    debug: Debug = False,
) -> None:
    """Measure AUROC and AUPR, mean ± std over seeds, of detectors and trivial ones. Runs resume.

    Example: ganad benchmark accuracy --detectors ganomaly --on digits:0,digits:8 --out bench
    """
    from pipelines.benchmark.quality.accuracy import accuracy as run

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
            pixels=pixels,
            debug=debug,
        )
    finally:  # also if some runs failed
        if (Path(out) / "accuracy.md").exists():
            print((Path(out) / "accuracy.md").read_text())


@benchmarks.command()
def ablation(
    out: Out,
    data_set: Annotated[
        str, typer.Option("--on", help="digits:C, mnist:C, magnetic_tile or a folder.")
    ] = "magnetic_tile",
    seeds: Seeds = "0,1,2",
    set_: Set = None,
    budget: Annotated[
        str | None, typer.Option(help="Settings: its table ganomaly_maps. tile or a TOML file.")
    ] = "tile",
    normal: Normal = "",
    cores: Cores = 1,
    data: Data = DATA,
    debug: Debug = False,
) -> None:
    """GANomaly on maps: each part of its score alone, without L_adv, and without training.

    Example: ganad benchmark ablation --out bench/ablation
    """
    from pipelines.benchmark.quality.ablation import ablation as run

    options: dict[str, Any] = {"normal": words(normal), "budget": budget, "cores": cores}
    numbers = [int(seed) for seed in words(seeds)]
    print(run(out, data_set, numbers, set_ or [], data, **options, debug=debug))


@benchmarks.command()
def calibration(
    out: Out,
    detectors: Annotated[str, typer.Option(help="Detectors, comma-separated.")] = "gaussian,knn",
    data_sets: On = "magnetic_tile,mnist:0/8,digits:0",
    seeds: Seeds = "0,1,2",
    set_: Set = None,
    budget: Annotated[str | None, typer.Option(help="Settings by detector: a TOML file.")] = None,
    normal: Normal = "",
    folds: Annotated[int, typer.Option(min=2, help="Folds of the crossed calibration.")] = 5,
    cores: Cores = 1,
    data: Data = DATA,
    debug: Debug = False,
) -> None:
    """Count fresh normal images with small p-values: held-out and crossed calibration.

    Example: ganad benchmark calibration --out bench/calibration
    """
    from pipelines.benchmark.quality.calibration import calibration as run

    options: dict[str, Any] = {"normal": words(normal), "budget": budget, "cores": cores}
    numbers = [int(seed) for seed in words(seeds)]
    sets, settings = words(data_sets), set_ or []
    text = run(
        out, words(detectors), sets, numbers, settings, data, **options, folds=folds, debug=debug
    )
    print(text)


@benchmarks.command()
def training(
    source: Annotated[str, typer.Argument(help="Normal images.")],
    steps: Annotated[int, typer.Option(min=1, help="Training steps per round.")] = 4,
    rounds: Annotated[int, typer.Option(min=1, help="Timed rounds of each loop.")] = 5,
    cores: Annotated[int, typer.Option(min=1, help="Threads of each loop.")] = 2,
    workers: Annotated[
        str, typer.Option(help="Worker counts of the Ray jobs, comma-separated, or none.")
    ] = "1,2",
    job_steps: Annotated[
        int, typer.Option(min=1, help="Steps of each Ray job, with a checkpoint every 200.")
    ] = 200,
    anomalib: Anomalib = None,
    debug: Debug = False,
) -> None:
    """Measure the training speed of GANomaly: ganad's loop, plain PyTorch, anomalib and Ray jobs.

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
    source: Annotated[str, typer.Argument(help="Images, with labels for AUROC.")],
) -> None:
    """Compare scoring in float32 and bfloat16: speed, AUROC and rank correlation.

    Example: ganad benchmark precision model parts/test
    """
    from pipelines.benchmark.precision import precision as run
    from pipelines.console.output import write_table

    rows = run(model, source)
    write_table(list(rows[0]), rows, sys.stdout)


@benchmarks.command()
def search(
    model: Annotated[str, typer.Argument(help="A saved anogan model.")],
    source: Annotated[str, typer.Argument(help="Images to search for.")],
    alone: Annotated[int, typer.Option(min=1, help="Images searched one by one.")] = 8,
    together: Annotated[int, typer.Option(min=1, help="Images searched at once.")] = 256,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of a search. Default: the model's.")
    ] = None,
) -> None:
    """Compare AnoGAN's search in batches and one by one: speed and final loss.

    Example: ganad benchmark search model parts/test
    """
    from pipelines.benchmark.search import search as run
    from pipelines.console.output import write_table

    rows = run(model, source, alone, together, steps)
    write_table(list(rows[0]), rows, sys.stdout)


@benchmarks.command()
def patches(
    detector: Annotated[str, typer.Argument(help="Name of a detector.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="One config key, such as patch.size=64.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Timed repetitions.")] = 5,
) -> None:
    """Measure pixels per second and memory with and without patches, with the same networks.

    Example: ganad benchmark patches ganomaly --set image_size=256 --set patch.size=64
    """
    from pipelines.benchmark.patches import patches as run
    from pipelines.console.output import write_table

    rows = run(detector, set_ or [], rounds)
    write_table(list(rows[0]), rows, sys.stdout)


@benchmarks.command()
def maps(
    source: Annotated[str, typer.Argument(help="Normal images.")],
    detectors: Annotated[
        str, typer.Option(help="Detectors over maps, comma-separated.")
    ] = "padim,patchcore",
    set_: Set = None,
    num: Annotated[int | None, typer.Option(min=2, help="Images to fit to. Default: all.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each way.")] = 7,
    cores: Cores = 1,
    anomalib: Anomalib = None,
) -> None:
    """Speed and memory of padim and patchcore, beside the bare forward pass of their network.

    Example: ganad benchmark maps parts/train
    """
    from pipelines.benchmark.maps import maps as run
    from pipelines.console.output import write_table

    options: dict[str, Any] = {"num": num, "rounds": rounds, "cores": cores}
    rows = run(source, set_ or [], detectors=words(detectors), anomalib=anomalib, **options)
    write_table(list(rows[0]), rows, sys.stdout)


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
def gpu(
    out: Out,
    rows: Annotated[
        str, typer.Option(help="Some of the rows, such as padim,decode. Default: all.")
    ] = "",
    seconds: Annotated[float, typer.Option(min=0.01, help="Seconds of a measurement.")] = 3.0,
    device: Annotated[str, typer.Option(help="auto, cuda or cpu.")] = "auto",
) -> None:
    """All figures of a GPU in ten minutes: scoring, decoding, training steps, AnoGAN's search.

    Example: ganad benchmark gpu --out bench/gpu
    """
    from pipelines.benchmark.gpu.run import gpu as run
    from pipelines.console.progress import say

    print(run(out, words(rows), seconds=seconds, device=device, tell=say), end="")


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
def sharing(
    models_and_source: Annotated[
        list[str],
        typer.Argument(metavar="MODEL... SOURCE", help="Models with the same backbone; images."),
    ],
    num: Annotated[int, typer.Option(min=1, help="Images that are scored.")] = 256,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each way.")] = 3,
    cores: Annotated[int, typer.Option(min=1, help="Threads.")] = 1,
) -> None:
    """Models that share the pass of their backbone, beside each by itself.

    Example: ganad benchmark sharing gaussian knn parts/test
    """
    from pipelines.benchmark.sharing import sharing as run
    from pipelines.console.output import write_table

    *models, source = models_and_source
    rows = run(models, source, num, rounds, cores)
    write_table(list(rows[0]), rows, sys.stdout)
