"""Speed and memory of scoring jobs beside what the machine can do. Run: ganad benchmark scoring

Every figure is of real work on this machine at this moment: nothing else should run meanwhile. What
is compared takes turns, and a ratio is the median over rounds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from ganad.archive.listing import list_images
from ganad.images.decode import Preprocessing
from ganad.saved import read_info
from pipelines.benchmark import roofline, shrinking
from pipelines.benchmark.anomalib import predict_with_anomalib
from pipelines.benchmark.processes import ScoringJob, command, score
from pipelines.benchmark.scoring_data import (
    make_jpegs,
    make_large_jpeg,
    make_paths,
    make_tar,
    put_on_s3,
    untrained,
)
from pipelines.console.progress import say

FEW_ROWS = 10_000
LARGE = (4000, 3000)
Figure = dict[str, Any]
"""what: the measured thing; value and unit; beside: what it is to be compared with."""
Turn = Callable[[], float | ScoringJob]
"""Works through the images once; images per second, or the job that did it."""

DECODE, FORWARD, BOTH = "decode alone", "forward alone", "decode and forward"
LOOP = "hand-written DataLoader loop"
ANOMALIB, PICTURES = "anomalib, scores alone", "anomalib as it comes, with its pictures"
JOB, ALONE = "whole job on loose files", "whole job, one worker of one thread"


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
) -> list[Figure]:
    """Measure all of it; writes OUT/scoring.json and OUT/scoring.md and returns their rows.

    num: JPEGs of 256 x 256 made from the magnetic tiles in the folder data. num_rows: rows of the
    large archive, of which the listing's speed and the driver's memory are measured; 0 for none.
    model: a saved one; without it, a GANomaly of 64 pixels with its first weights, as its speed is
    that of any. s3: a prefix, to which the images are copied and from which they are scored too.
    anomalib: a Python that has anomalib, to score with its GANomaly.
    """
    folder = Path(out).absolute()
    tiles = Path(data).absolute() / "magnetic_tile"
    workers = workers or os.cpu_count() or 1
    jpegs = make_jpegs(folder / f"jpegs-{num}", str(tiles / "train"), num)
    model = str(Path(model).absolute()) if model else untrained(folder / "model")
    turns = _turns(model, jpegs, num, workers, folder)
    if s3 is not None:
        turns |= _turns_on_s3(model, jpegs, num, workers, folder, s3)
    if anomalib is not None:
        turns |= _turns_of_anomalib(anomalib, model, jpegs, workers)
    figures: list[Figure] = []
    for some in (
        _speeds(turns, rounds, workers),
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


def _turns(model: str, jpegs: Path, num: int, workers: int, folder: Path) -> dict[str, Turn]:
    rows = list(list_images([str(jpegs)]))
    paths = [row["uri"] for row in rows]
    tar = make_tar(folder / f"jpegs-{num}.tar", jpegs)
    tables, by_hand = folder / "tables", folder / "by-hand.parquet"
    turns: dict[str, Turn] = {
        DECODE: lambda: roofline.decode_alone(model, rows, workers),
        FORWARD: lambda: roofline.forward_alone(model, rows, workers),
        BOTH: lambda: roofline.both(model, rows, workers),
        LOOP: lambda: roofline.hand_written_loop(model, paths, workers, by_hand),
        JOB: lambda: score(model, str(jpegs), tables, workers, (num, 0)),
        "whole job on a tar": lambda: score(model, str(tar), tables, workers, (num, 0)),
    }
    if workers > 1:
        turns[ALONE] = lambda: score(model, str(jpegs), tables, 1, (num, 0), one_thread=True)
    return turns


def _turns_on_s3(
    model: str, jpegs: Path, num: int, workers: int, folder: Path, s3: str
) -> dict[str, Turn]:
    loose, tar = put_on_s3(s3, jpegs, make_tar(folder / f"jpegs-{num}.tar", jpegs))
    tables = folder / "tables"
    return {
        "whole job on loose objects of S3": lambda: score(model, loose, tables, workers, (num, 0)),
        "whole job on a tar on S3": lambda: score(model, tar, tables, workers, (num, 0)),
    }


def _turns_of_anomalib(python: str, model: str, jpegs: Path, workers: int) -> dict[str, Turn]:
    size, source = read_info(model)["config"]["image_size"], str(jpegs)
    return {
        ANOMALIB: lambda: predict_with_anomalib(python, source, size, workers),
        PICTURES: lambda: predict_with_anomalib(python, source, size, workers, pictures=True),
    }


def _speeds(turns: Mapping[str, Turn], rounds: int, workers: int) -> Iterator[Figure]:
    rates: dict[str, list[float]] = {name: [] for name in turns}
    jobs: dict[str, list[ScoringJob]] = {}
    for number in range(rounds):
        for name, turn in turns.items():
            told = turn()
            if isinstance(told, ScoringJob):
                jobs.setdefault(name, []).append(told)
                told = told.steady
            rates[name].append(told)
        say(f"round {number + 1} of {rounds}")
    for name, found in rates.items():
        beside = f"{min(found):,.0f} to {max(found):,.0f}"
        if name in jobs:
            beside += f"; {median(job.rate for job in jobs[name]):,.0f} from first image to last"
        yield _figure(name, median(found), "images/s", beside)
    if JOB in jobs:
        fixed = median(job.fixed_s for job in jobs[JOB])
        yield _figure("start and end of that job", fixed, "s", "before its first image, after all")
    limits = [1 / (1 / a + 1 / b) for a, b in zip(rates[DECODE], rates[FORWARD], strict=True)]
    yield _ratio("share of 1 / (1/decode + 1/forward)", rates[JOB], limits)
    for others in (LOOP, ANOMALIB, PICTURES):
        if others in rates:
            yield _ratio(f"whole job, times {others}", rates[JOB], rates[others])
    if ALONE in rates:
        yield _ratio(f"one worker to {workers}, a thread each, times", rates[JOB], rates[ALONE])


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
