"""Benchmarks of what detectors find: accuracy, ablation, p-values, engines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.cli.benchmark.program import DATA, Cores, Data, Normal, On, Seeds, Set, benchmarks
from pipelines.cli.options import Debug, Out, words


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
def engines(
    out: Out,
    detectors: Annotated[str, typer.Option(help="Detectors, comma-separated.")],
    data_sets: On = "digits:0",
    names: Annotated[
        str, typer.Option("--engines", help="Engines to compare with eager, comma-separated.")
    ] = "openvino",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the trainings.")] = 0,
    set_: Set = None,
    budget: Annotated[
        str | None, typer.Option(help="Settings by detector: digits, mnist, tile or a TOML file.")
    ] = "digits",
    normal: Normal = "",
    cores: Cores = 1,
    data: Data = DATA,
    debug: Debug = False,
) -> None:
    """AUROC by engine, and whether engines pass the gate, for each detector. Runs resume.

    Example: ganad benchmark engines --detectors ganomaly,gaussian --out bench/engines
    """
    from pipelines.benchmark.quality.engines import engines as run

    options: dict[str, Any] = {"normal": words(normal), "budget": budget, "cores": cores}
    sets, settings, typed = words(data_sets), set_ or [], words(names)
    print(run(out, words(detectors), sets, seed, settings, data, typed, **options, debug=debug))
