"""What takes turns in the benchmark of scoring: each stage of the work, whole jobs, other programs.

An engine other than eager has turns of its own, whose names end in "by ENGINE".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ganad.saved import read_info
from pipelines.benchmark import roofline
from pipelines.benchmark.anomalib import Way, predict_with_anomalib
from pipelines.benchmark.processes import ScoringJob, score
from pipelines.benchmark.scoring_data import make_tar, put_on_s3
from pipelines.passes.engines import EAGER

Turn = Callable[[], float | ScoringJob]
"""Works through the images once; images per second, or the job that did it."""
Turns = Mapping[str, Turn]

DECODE, FORWARD, BOTH = "decode alone", "forward alone", "decode and forward"
LOOP = "hand-written DataLoader loop"
ANOMALIB, PICTURES = "anomalib, scores alone", "anomalib as it comes, with its pictures"
ANOMALIB_OPENVINO = "anomalib exported to OpenVINO"
JOB, ALONE = "whole job on loose files", "whole job, one worker of one thread"


def by(what: str, engine: str) -> str:
    """The name of a turn, or of a figure, for an engine."""
    return what if engine == EAGER else f"{what} by {engine}"


def stages(
    model: str,
    rows: Sequence[Mapping[str, Any]],
    workers: int,
    folder: Path,
    jpegs: Path,
    engines: Sequence[str],
) -> dict[str, Turn]:
    """Decoding, and for each engine its forward pass, a loop written by hand, and the job."""
    paths = [str(row["uri"]) for row in rows]
    tables, by_hand, num = folder / "tables", folder / "by-hand.parquet", len(rows)

    def of(engine: str) -> dict[str, Turn]:
        return {
            by(FORWARD, engine): lambda: roofline.forward_alone(model, rows, workers, engine),
            by(LOOP, engine): lambda: roofline.hand_written_loop(
                model, paths, workers, by_hand, engine
            ),
            by(JOB, engine): lambda: score(
                model, str(jpegs), tables, workers, (num, 0), engine=engine
            ),
        }

    turns: dict[str, Turn] = {
        DECODE: lambda: roofline.decode_alone(model, rows, workers),
        BOTH: lambda: roofline.both(model, rows, workers),
    }
    for engine in engines:
        turns |= of(engine)
    return turns


def other_jobs(model: str, jpegs: Path, num: int, workers: int, folder: Path) -> dict[str, Turn]:
    """The eager job on a tar, and by one worker."""
    tar, tables = make_tar(folder / f"jpegs-{num}.tar", jpegs), folder / "tables"
    turns: dict[str, Turn] = {
        "whole job on a tar": lambda: score(model, str(tar), tables, workers, (num, 0))
    }
    if workers > 1:
        turns[ALONE] = lambda: score(model, str(jpegs), tables, 1, (num, 0), one_thread=True)
    return turns


def jobs_on_s3(
    model: str, jpegs: Path, num: int, workers: int, folder: Path, s3: str
) -> dict[str, Turn]:
    """The eager job on objects below the prefix s3."""
    loose, tar = put_on_s3(s3, jpegs, make_tar(folder / f"jpegs-{num}.tar", jpegs))
    tables = folder / "tables"
    return {
        "whole job on loose objects of S3": lambda: score(model, loose, tables, workers, (num, 0)),
        "whole job on a tar on S3": lambda: score(model, tar, tables, workers, (num, 0)),
    }


def of_anomalib(
    python: str, model: str, jpegs: Path, workers: int, engines: Sequence[str]
) -> dict[str, Turn]:
    """anomalib's GANomaly; exported to OpenVINO, too, if that is among the engines."""
    size, source = read_info(model)["config"]["image_size"], str(jpegs)
    ways: dict[str, Way] = {ANOMALIB: "scores", PICTURES: "pictures"}
    if "openvino" in engines:
        ways[ANOMALIB_OPENVINO] = "openvino"

    def turn(way: Way) -> Turn:
        return lambda: predict_with_anomalib(python, source, size, workers, way)

    return {name: turn(way) for name, way in ways.items()}
