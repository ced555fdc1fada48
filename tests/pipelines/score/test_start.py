"""What the processes of a scoring job load before the first image, and when they come how far."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from ganad.scores.records import read_runs
from pipelines.score import totals

DRIVER = """
import sys
from pipelines.score.run import score
score([sys.argv[1]], [sys.argv[2]], sys.argv[3], gpu=False)
print(*sys.modules)
"""
WORKER = """
import sys
from pipelines.score.scorer import Scorer
Scorer(models=[sys.argv[1]], num_threads=1, table=sys.argv[2])
print(*sys.modules)
"""
SLOW = {"timm", "torchvision", "torch._dynamo"}
"""What takes a second or more to import, beside torch."""


def modules(program: str, *arguments: str) -> set[str]:
    """Names of all that the program has imported at its end, in a fresh interpreter."""
    address = {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(
        command, env={**os.environ, **address}, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.fixture(scope="module")
def scored(
    model: str, image_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, set[str]]:
    """A table that a driver of its own has scored, and what the driver has imported."""
    table = str(tmp_path_factory.mktemp("start") / "table")
    return table, modules(DRIVER, model, str(image_folder), table)


def test_the_driver_loads_no_networks(scored: tuple[str, set[str]]) -> None:
    _, loaded = scored
    assert "ray.data" in loaded
    assert not loaded & {"torch", *SLOW}


def test_the_record_of_a_run_says_when_it_came_how_far(scored: tuple[str, set[str]]) -> None:
    table, _ = scored
    (run,) = read_runs(table).values()
    moments = run.timings["moments"]
    order = [
        totals.LISTED,
        totals.JOINED,
        totals.FIRST_WORKER,
        totals.WORKERS_READY,
        totals.FIRST_RESULT,
        totals.LAST_RESULT,
        totals.LEFT,
        totals.COUNTED,
    ]
    assert sorted(moments) == sorted(order)
    # Another worker may become ready when the first one has results.
    order.remove(totals.WORKERS_READY)
    times = [0, *(moments[name] for name in order)]
    assert times == sorted(times)
    assert times[-1] <= run.timings["wall_s"] + 0.01


def test_a_worker_loads_only_the_networks_of_its_model(model: str, tmp_path: Path) -> None:
    loaded = modules(WORKER, model, str(tmp_path))
    assert "torch" in loaded
    assert not loaded & SLOW
