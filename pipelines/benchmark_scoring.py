"""Speed and memory of scoring jobs beside what the machine can do. Run: ganad benchmark scoring

Every figure is of real work on this machine at this moment: nothing else should run meanwhile.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ganad.archive.decode import Preprocessing
from ganad.archive.listing import list_images
from ganad.detectors import configure, create
from ganad.errors import GanadError
from ganad.model import Model, read_info
from pipelines import benchmark_roofline as roofline
from pipelines.benchmark_scoring_data import make_jpegs, make_large_jpeg, make_paths, make_tar
from pipelines.progress import say

FEW_ROWS = 10_000
LARGE = (6000, 4000)
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
) -> list[Figure]:
    """Measure all of it; writes OUT/scoring.json and OUT/scoring.md and returns their rows.

    num: JPEGs of 256 x 256 made from the magnetic tiles in the folder data. num_rows: rows of the
    large archive, of which the listing's speed and the driver's memory are measured. model: a saved
    one; without it, a GANomaly of 64 pixels with its first weights, as its speed is that of any.
    """
    folder = Path(out).absolute()
    tiles = str(Path(data).absolute() / "magnetic_tile" / "train")
    workers = workers or os.cpu_count() or 1
    jpegs = make_jpegs(folder / f"jpegs-{num}", tiles, num)
    tar = make_tar(folder / f"jpegs-{num}.tar", jpegs)
    model = str(Path(model).absolute()) if model else _untrained(folder / "model")
    rows = list(list_images([str(jpegs)]))
    figures: list[Figure] = []
    for some in (
        _rooflines(model, rows, workers, folder),
        _jobs(model, jpegs, tar, len(rows), workers, folder),
        _large_archive(model, num_rows, workers, folder),
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


def _untrained(folder: Path) -> str:
    config = configure("ganomaly", {"image_size": 64, "channels": 1})
    return Model(create("ganomaly", config), None).save(str(folder))


def _rooflines(
    model: str, rows: list[dict[str, Any]], workers: int, folder: Path
) -> Iterator[Figure]:
    on = f"{workers} processes"
    yield _figure("decode alone", roofline.decode_alone(model, rows, workers), "images/s", on)
    yield _figure("forward alone", roofline.forward_alone(model, rows, workers), "images/s", on)
    yield _figure("decode and forward", roofline.both(model, rows, workers), "images/s", on)
    paths = [row["uri"] for row in rows]
    rate = roofline.hand_written_loop(model, paths, workers, folder / "by-hand.parquet")
    yield _figure("hand-written DataLoader loop", rate, "images/s", f"{workers} loaders")


def _jobs(
    model: str, jpegs: Path, tar: Path, num: int, workers: int, folder: Path
) -> Iterator[Figure]:
    for what, source in (("loose files", jpegs), ("a tar", tar)):
        run, seconds, _ = _score(model, source, folder, workers)
        _check(run, num, 0)
        periods = run["work"]["periods"]
        working = sum(period["seconds"] for period in periods)
        name = f"whole job on {what}"
        yield _figure(name, num / working, "images/s", "from its first image to its last")
        yield _figure(f"{name}, with start and end", num / seconds, "images/s", f"{seconds:.0f} s")


def _large_archive(model: str, num_rows: int, workers: int, folder: Path) -> Iterator[Figure]:
    few = min(FEW_ROWS, num_rows)
    for num in dict.fromkeys((few, num_rows)):
        paths = make_paths(folder / f"paths-{num}", num)
        manifest = folder / f"manifest-{num}"
        if not manifest.exists():
            seconds, peak = _measured(["index", str(paths), "--out", str(manifest)])
            yield _figure(f"index of {num:,} paths", num / seconds, "paths/s", f"{seconds:.0f} s")
            yield _figure("memory of that index", peak, "MiB")
        run, seconds, peak = _score(model, manifest, folder, workers)
        _check(run, 0, num)
        beside = f"{num / seconds:,.0f} rows/s"
        yield _figure(f"memory of the driver at {num:,} rows", peak, "MiB", beside)


def _large_jpeg(model: str, tiles: str) -> Iterator[Figure]:
    preprocessing = Preprocessing(**read_info(model)["preprocessing"])
    data = make_large_jpeg(tiles, *LARGE)
    fast, slow = roofline.decode_large(data, preprocessing, repeats=5)
    name = f"JPEG of {LARGE[0]} x {LARGE[1]} to {preprocessing.image_size} px"
    yield _figure(name, 1000 * fast, "ms", f"{1000 * slow:.0f} ms with all of its pixels")


def _score(
    model: str, source: Path, folder: Path, workers: int
) -> tuple[dict[str, Any], float, float]:
    """run.json, seconds, and the driver's peak of memory, of a job into a fresh table."""
    table = folder / "tables" / f"{source.name}-{time.time_ns()}"
    seconds, peak = _measured(
        ["score", model, str(source), "--out", str(table), "--workers", str(workers)]
    )
    return json.loads((table / "run.json").read_text()), seconds, peak


def _measured(arguments: list[str]) -> tuple[float, float]:
    """Run a ganad command in a process of its own: seconds, and peak of resident memory in MiB."""
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        command = [sys.executable, "-m", "pipelines", *arguments]
        process = subprocess.Popen(command, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise GanadError(f"ganad {' '.join(arguments)} failed: {said.read().strip()[-300:]}")
    return seconds, usage.ru_maxrss / 1024


def _check(run: dict[str, Any], scored: int, failed: int) -> None:
    """A figure of a job that did something else would be worth nothing."""
    (count,) = run["counts"].values()
    assert (count["scored"], count["failed"]) == (scored, failed), count
