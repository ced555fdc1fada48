"""Times the pages of ganad browse over a synthetic table. Run: ganad benchmark browse --out DIR"""

from __future__ import annotations

import http.client
import resource
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import uvicorn

from ganad.browse.app import Browser
from ganad.scores.files import ScoreFile
from ganad.scores.parts import write_part
from ganad.scores.table import SCHEMA, ScoreTable

MODELS = ("knn-000000000001", "ganomaly-000000000002")
PART_ROWS = 2**16
_PAGES = {
    "first page": "/?",
    "page 400": "/?page=400",
    "page 400, no verdict yet": "/?page=400&verdict=none",
    "p < .01, second page": "/?p=0.01&page=2",
    "one folder": "/?folder=line3",
    "SQL condition": "/?where=name+LIKE+'%259.jpg'",
    "two models": f"/?beside={MODELS[1]}",
    "one image": "/image/0000000000000007?",
}


def browse(out: str, rows: int, rounds: int) -> str:
    """A table of seconds by page: median, lowest and highest of the rounds.

    Writes the synthetic score table of `rows` rows and two models to OUT/table unless it is there.
    """
    folder = str(Path(out) / f"table-{rows}")
    if not Path(folder).exists():
        write_synthetic(folder, rows)
    token = "benchmark"
    browser = Browser(ScoreTable(folder), "benchmark", token, 2**26)
    config = uvicorn.Config(browser.app(), port=0, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    times = {
        name: [_get(port, path, token) for _ in range(rounds)] for name, path in _PAGES.items()
    }
    server.should_exit = True
    thread.join()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    lines = [f"| {rows:,} rows, 2 models | median s | lowest | highest |", "|---|---|---|---|"]
    for name, one in times.items():
        lines.append(f"| {name} | {statistics.median(one):.2f} | {min(one):.2f} | {max(one):.2f} |")
    return "\n".join([*lines, "", f"peak memory {peak:,} MiB"])


def _get(port: int, path: str, token: str) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    began = time.perf_counter()
    connection.request("GET", path, headers={"Cookie": f"ganad-token={token}"})
    answer = connection.getresponse()
    answer.read()
    seconds = time.perf_counter() - began
    if answer.status != 200:
        sys.exit(f"{path} answered {answer.status}")
    return seconds


def write_synthetic(folder: str, rows: int) -> None:
    """A score table of two models with the names of an archive of photographs, and no images."""
    for seed, model in enumerate(MODELS):
        for number, part in enumerate(_parts(model, rows, np.random.default_rng(seed))):
            write_part(ScoreFile(folder, model, number, number), part, [])


def _parts(model: str, rows: int, rng: np.random.Generator) -> Iterator[pa.Table]:
    for start in range(0, rows, PART_ROWS):
        numbers = range(start, min(start + PART_ROWS, rows))
        names = [f"line{one % 7}/{one // 1000:06d}/{one:09d}.jpg" for one in numbers]
        scores = rng.gamma(4, 1, len(numbers))
        yield pa.table(
            {
                "image_id": [f"{one:016x}" for one in numbers],
                "uri": [f"s3://bucket/archive/{name}" for name in names],
                "member": pa.nulls(len(names), pa.string()),
                "name": names,
                "width": np.full(len(names), 640, np.int32),
                "height": np.full(len(names), 480, np.int32),
                "score": scores,
                "p_value": np.maximum(1 / 1001, rng.random(len(names))),
                "terms": pa.array(
                    [[("distance", float(one))] for one in scores], SCHEMA.field("terms").type
                ),
                **{
                    name: pa.nulls(len(names), SCHEMA.field(name).type)
                    for name in ("label", "abnormal", "mask", "error")
                },
                "scored_at": pa.array(np.zeros(len(names), np.int64), pa.timestamp("us", "UTC")),
                "model": [model] * len(names),
            },
            schema=SCHEMA,
        )
