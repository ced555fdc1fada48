"""Benchmarks of a detector's speed and memory in one process, and of training."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from pipelines.cli.benchmark.program import Anomalib, Cores, Set, benchmarks
from pipelines.cli.options import Debug, Out, words


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
    compiled: Annotated[
        bool, typer.Option("--compiled", help="Also a loop whose networks TorchInductor compiles.")
    ] = False,
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
        compiled=compiled,
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
    compiled: Annotated[
        bool, typer.Option("--compiled", help="Also with networks compiled by TorchInductor.")
    ] = False,
) -> None:
    """Compare AnoGAN's search in batches and one by one: speed and final loss.

    Example: ganad benchmark search model parts/test
    """
    from pipelines.benchmark.search import search as run
    from pipelines.console.output import write_table

    rows = run(model, source, alone, together, steps, compiled=compiled)
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
