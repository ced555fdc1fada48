"""Speed and memory of scoring jobs beside what the machine can do. Run: ganad benchmark scoring

Every figure is of real work on this machine at this moment: nothing else should run meanwhile. What
is compared takes turns, and a ratio is the median over rounds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from ganad.archive.listing import list_images
from ganad.engines.known import available
from ganad.errors import ConfigError
from ganad.images.decode import Preprocessing
from ganad.saved import read_info
from pipelines.benchmark import shrinking
from pipelines.benchmark.processes import ScoringJob, command, score
from pipelines.benchmark.scoring_data import make_jpegs, make_large_jpeg, make_paths, untrained
from pipelines.benchmark.scoring_turns import (
    ALONE,
    ANOMALIB,
    ANOMALIB_OPENVINO,
    DECODE,
    FORWARD,
    JOB,
    LOOP,
    PICTURES,
    Turns,
    by,
    jobs_on_s3,
    of_anomalib,
    other_jobs,
    stages,
)
from pipelines.console.progress import say
from pipelines.passes.engines import EAGER

FEW_ROWS = 10_000
LARGE = (4000, 3000)
Figure = dict[str, Any]
"""what: the measured thing; value and unit; beside: what it is to be compared with."""


def scoring(
    out: str,
    data: str,
    *,
    model: str | None = None,
    num: int = 5_000,
    num_rows: int = 1_000_000,
    workers: int | None = None,
    rounds: int = 3,
    s3: str | None = None,
    anomalib: str | None = None,
    engines: Sequence[str] = (EAGER,),
) -> list[Figure]:
    """Measure all of it; writes OUT/scoring.json and OUT/scoring.md and returns their rows.

    num: JPEGs of 256 x 256 made from the magnetic tiles in the folder data. num_rows: rows of the
    large archive, of which the listing's speed and the driver's memory are measured; 0 for none.
    model: a saved one; without it, a GANomaly of 64 pixels with its first weights, as its speed is
    that of any. s3: a prefix, to which the images are copied and from which they are scored too.
    anomalib: a Python that has anomalib, to score with its GANomaly. engines: those whose forward
    pass, loop and job are measured; eager always is, as others are compared with it. Raises
    ConfigError for an engine that is not there.
    """
    engines = _with_eager(engines)
    folder = Path(out).absolute()
    tiles = Path(data).absolute() / "magnetic_tile"
    workers = workers or os.cpu_count() or 1
    jpegs = make_jpegs(folder / f"jpegs-{num}", str(tiles / "train"), num)
    model = str(Path(model).absolute()) if model else untrained(folder / "model")
    rows = list(list_images([str(jpegs)]))
    turns = stages(model, rows, workers, folder, jpegs, engines)
    turns |= other_jobs(model, jpegs, num, workers, folder)
    if s3 is not None:
        turns |= jobs_on_s3(model, jpegs, num, workers, folder, s3)
    if anomalib is not None:
        turns |= of_anomalib(anomalib, model, jpegs, workers, engines)
    figures: list[Figure] = []
    for some in (
        _speeds(turns, rounds, workers, engines),
        _large_archive(model, num_rows, workers, folder) if num_rows else [],
        _large_jpeg(model, tiles),
    ):
        for figure in some:
            say(_line(figure))
            figures.append(figure)
    (folder / "scoring.json").write_text(json.dumps(figures, indent=2))
    (folder / "scoring.md").write_text(as_markdown(figures))
    return figures


def as_markdown(figures: Sequence[Figure]) -> str:
    """A line for each figure."""
    lines = ["| what | value | |", "|---|---|---|"]
    lines += [f"| {one['what']} | {_value(one)} | {one['beside']} |" for one in figures]
    return "\n".join(lines) + "\n"


def _figure(what: str, value: float, unit: str, beside: str = "") -> Figure:
    return {"what": what, "value": float(f"{value:.4g}"), "unit": unit, "beside": beside}


def _value(figure: Figure) -> str:
    return f"{figure['value']:,.6g} {figure['unit']}"


def _line(figure: Figure) -> str:
    beside = f" ({figure['beside']})" if figure["beside"] else ""
    return f"{figure['what']}: {_value(figure)}{beside}"


def _speeds(turns: Turns, rounds: int, workers: int, engines: Sequence[str]) -> Iterator[Figure]:
    rates: dict[str, list[float]] = {name: [] for name in turns}
    jobs: dict[str, list[ScoringJob]] = {}
    for number in range(rounds):
        for name, turn in turns.items():
            told = turn()
            if isinstance(told, ScoringJob):
                jobs.setdefault(name, []).append(told)
                told = told.steady
            rates[name].append(told)
            say(f"round {number + 1} of {rounds}: {name}: {told:,.0f} images/s")
    for name, found in rates.items():
        beside = f"{min(found):,.0f} to {max(found):,.0f}"
        if name in jobs:
            beside += f"; {median(job.rate for job in jobs[name]):,.0f} from first image to last"
        yield _figure(name, median(found), "images/s", beside)
    for engine in engines:
        job = by(JOB, engine)
        fixed = median(one.fixed_s for one in jobs[job])
        yield _figure(f"start and end of {job}", fixed, "s", "before its first image, after all")
    for engine in engines:
        yield from _ratios(rates, engine)
    if ALONE in rates:
        yield _ratio(f"one worker to {workers}, a thread each, times", rates[JOB], rates[ALONE])


def _ratios(rates: Mapping[str, list[float]], engine: str) -> Iterator[Figure]:
    """The job of an engine beside what it can be compared with."""
    job, forward = rates[by(JOB, engine)], rates[by(FORWARD, engine)]
    limits = [1 / (1 / a + 1 / b) for a, b in zip(rates[DECODE], forward, strict=True)]
    yield _ratio(by("share of 1 / (1/decode + 1/forward)", engine), job, limits)
    others = [by(FORWARD, engine), by(LOOP, engine), ANOMALIB, PICTURES]
    if engine != EAGER:
        others = [*others, JOB, ANOMALIB_OPENVINO]
    for other in others:
        if other in rates:
            yield _ratio(f"{by('whole job', engine)}, times {other}", job, rates[other])


def _with_eager(engines: Sequence[str]) -> list[str]:
    """Each once, eager first; raises ConfigError for one that this machine does not have."""
    there = available()
    for engine in engines:
        if engine not in there:
            raise ConfigError(
                f"--engines {','.join(engines)}: this machine has no {engine}: use some of "
                f"{','.join(there)}"
            )
    return list(dict.fromkeys((EAGER, *engines)))


def _ratio(what: str, ours: Sequence[float], others: Sequence[float]) -> Figure:
    found = [one / other for one, other in zip(ours, others, strict=True)]
    return _figure(what, median(found), "", f"{min(found):.3g} to {max(found):.3g}")


def _large_archive(model: str, num_rows: int, workers: int, folder: Path) -> Iterator[Figure]:
    few = min(FEW_ROWS, num_rows)
    for num in dict.fromkeys((few, num_rows)):
        paths = make_paths(folder / f"paths-{num}", num)
        manifest = folder / f"manifest-{num}"
        if not manifest.exists():
            seconds, peak = command(["index", str(paths), "--out", str(manifest)])
            yield _figure(f"index of {num:,} paths", num / seconds, "paths/s", f"{seconds:.0f} s")
            yield _figure("memory of that index", peak, "MiB")
        job = score(model, str(manifest), folder / "tables", workers, (0, num))
        beside = f"{num / job.seconds:,.0f} rows/s"
        yield _figure(f"memory of the driver at {num:,} rows", job.peak, "MiB", beside)


def _large_jpeg(model: str, tiles: Path) -> Iterator[Figure]:
    info = read_info(model)
    preprocessing = Preprocessing(**info["preprocessing"])
    fast, slow = shrinking.seconds(make_large_jpeg(str(tiles / "train"), *LARGE), preprocessing, 5)
    name = f"JPEG of {LARGE[0]} x {LARGE[1]} to {preprocessing.image_size} px"
    beside = f"{1 / slow:.3g} with all of its pixels; {slow / fast:.3g} times"
    yield _figure(name, 1 / fast, "images/s", beside)
    if info["num_calibration"] and (tiles / "test").is_dir():
        shrunk, whole = shrinking.auroc(model, str(tiles / "test"))
        assert shrunk is not None
        assert whole is not None
        beside = f"{whole:.4f} with all pixels of each JPEG"
        yield _figure("AUROC of the model on the tiles", shrunk, "", beside)
