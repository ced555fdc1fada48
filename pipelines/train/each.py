"""One model for each category folder. Run: ganad train DETECTOR FOLDER --each --out MODELS

Every category is a training job of its own, in MODELS/<category>, that resumes by itself. As many
run at once as the cluster has room for; MODELS/models.json is the table of all.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import ray

from ganad.detectors import configure
from ganad.errors import TrainingError
from ganad.storage import files as storage
from pipelines.cluster.connection import connected, pack
from pipelines.console.progress import say
from pipelines.train.cache import cache_environment
from pipelines.train.categories import categories
from pipelines.train.run import train

TABLE = "models.json"


def train_each(
    detector: str,
    source: Sequence[str],
    out: str,
    *,
    values: Mapping[str, Any] | None = None,
    workers: int | None = None,
    gpu: bool | None = None,
    drop_abnormal: bool = False,
    debug: bool = False,
) -> list[dict[str, Any]]:
    """Train a model on each folder in source; returns a row for each.

    workers: of each job, one unless given. Raises TrainingError at the end if some failed; the
    others are trained, and the same call again does what is missing.
    """
    # Checked here, and paths in it made absolute: tasks have another working directory.
    config = configure(detector, values or {}).model_dump(mode="json")
    folder, names = categories(source)
    places = {name: storage.join(storage.absolute(out), name) for name in names}
    with connected(debug):
        together, cores = pack(len(names), workers or 1, gpu)
        say(f"{len(names)} categories, {together} at a time")
        keys = {"workers": workers or 1, "gpu": gpu, "cores": cores, "drop": drop_abnormal}
        jobs = {
            name: (detector, storage.join(folder, name), places[name], config) for name in names
        }
        rows = _run(jobs, keys, together, storage.join(storage.absolute(out), TABLE))
    failed = [row for row in rows if row["error"]]
    if failed:
        raise TrainingError(
            f"{len(failed)} of {len(names)} categories failed, the first: {failed[0]['category']}: "
            f"{failed[0]['error']}; when that is mended, the same command does what is missing"
        )
    return rows


def _run(
    jobs: Mapping[str, tuple[Any, ...]], keys: Mapping[str, Any], together: int, table: str
) -> list[dict[str, Any]]:
    """Run the jobs of the categories, so many at a time; returns the rows of the table, which
    after each job holds what is done."""
    before = storage.read_json(table) if storage.exists(table) else []
    rows: dict[str, dict[str, Any]] = {row["category"]: row for row in before}
    # A task has the environment and the working directory of its machine, not of this process.
    environment = {"env_vars": cache_environment()}
    decorator: Any = ray.remote(num_cpus=0, max_retries=3, runtime_env=environment)
    task = decorator(_train_one)
    waiting = list(jobs)
    running: dict[Any, str] = {}
    for num_done in range(1, len(jobs) + 1):
        while waiting and len(running) < together:
            name = waiting.pop(0)
            running[task.remote(*jobs[name], **keys)] = name
        (done,), _ = ray.wait(list(running))
        name = running.pop(done)
        rows[name] = _row(name, done, rows.get(name))
        say(f"{num_done} of {len(jobs)}: {_told(rows[name])}")
        storage.write_json(table, [rows[one] for one in jobs if one in rows])
    return [rows[name] for name in jobs]


def _train_one(
    detector: str,
    source: str,
    out: str,
    values: dict[str, Any],
    *,
    workers: int,
    gpu: bool | None,
    cores: int,
    drop: bool,
) -> tuple[dict[str, Any], float]:
    """A job inside a task, which takes no cores: those of the job's own workers count."""
    began = time.perf_counter()
    info = train(
        detector,
        [source],
        out,
        values=values,
        workers=workers,
        gpu=gpu,
        cores=cores,
        drop_abnormal=drop,
    )
    return info, time.perf_counter() - began


def _row(name: str, done: Any, before: dict[str, Any] | None) -> dict[str, Any]:
    row: dict[str, Any] = {"category": name, "model": None, "error": None}
    try:
        info, seconds = ray.get(done)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause if isinstance(error.cause, Exception) else error
        return {**row, "error": next(iter(str(cause).splitlines()), type(cause).__name__)}
    except ray.exceptions.RayError as error:
        return {**row, "error": f"its process died ({type(error).__name__})"}
    if before is not None and before["model"] == info["id"]:
        return before  # trained by an earlier run, whose time counts
    training = info["training"]
    return {
        **row,
        "model": info["id"],
        "num_train": training["num_train"],
        "num_calibration": training["num_calibration"],
        "num_unreadable": training["num_unreadable"],
        "seconds": round(seconds, 1),
    }


def _told(row: Mapping[str, Any]) -> str:
    if row["error"]:
        return f"{row['category']} failed: {row['error']}"
    return f"{row['category']}: {row['model']} in {row['seconds']:,.0f} s"
