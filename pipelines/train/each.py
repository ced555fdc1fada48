"""One model for each category folder. Run: ganad train DETECTOR FOLDER --each --out MODELS

Every category is a training job of its own, in MODELS/<category>, that resumes by itself. As many
run at once as the cluster has room for; MODELS/models.json is the table of all.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import ray
from pydantic import ConfigDict, RootModel

from ganad.errors import TrainingError
from ganad.storage import files as storage
from ganad.storage.records import Record, read_record
from pipelines.cluster.connection import connected, jobs_at_once
from pipelines.console.progress import say
from pipelines.train.cache import cache_environment
from pipelines.train.categories import split
from pipelines.train.request import TrainRequest
from pipelines.train.run import train

TABLE = "models.json"


class _Row(Record):
    """A line of the table. The figures are missing where a training failed."""

    model_config = ConfigDict(extra="allow")

    category: str
    model: str | None
    error: str | None


Rows = RootModel[list[_Row]]


def train_each(request: TrainRequest, debug: bool = False) -> list[dict[str, Any]]:
    """Train a model on each folder in the request's source; returns a row for each.

    workers: of each job, one unless given. Raises TrainingError at the end if some failed; the
    others are trained, and the same call again does what is missing.
    """
    requests = split(request)
    workers = request.workers or 1
    assert isinstance(workers, int)
    with connected(debug):
        num_together, cores = jobs_at_once(len(requests), workers, request.gpu)
        say(f"{len(requests)} categories, {num_together} at a time")
        jobs = {name: replace(one, workers=workers, cores=cores) for name, one in requests.items()}
        table = storage.join(storage.absolute(request.out), TABLE)
        rows = _run(jobs, num_together, table)
    failed = [row for row in rows if row["error"]]
    if failed:
        raise TrainingError(
            f"{len(failed)} of {len(rows)} categories failed, the first: {failed[0]['category']}: "
            f"{failed[0]['error']}; when that is fixed, the same command trains what is missing"
        )
    return rows


def _run(jobs: Mapping[str, TrainRequest], num_together: int, table: str) -> list[dict[str, Any]]:
    """Run the jobs of the categories, some at a time; returns the rows of the table, which is
    written after each job."""
    rows = _earlier(table)
    # A task has the environment and the working directory of its machine, not of this process.
    environment = {"env_vars": cache_environment()}
    decorator: Any = ray.remote(num_cpus=0, max_retries=3, runtime_env=environment)
    task = decorator(_train_one)
    waiting = list(jobs)
    running: dict[Any, str] = {}
    for num_done in range(1, len(jobs) + 1):
        while waiting and len(running) < num_together:
            name = waiting.pop(0)
            running[task.remote(jobs[name])] = name
        (done,), _ = ray.wait(list(running))
        name = running.pop(done)
        rows[name] = _row(name, done, rows.get(name))
        say(f"{num_done} of {len(jobs)}: {_summary(rows[name])}")
        storage.write_json(table, [rows[name] for name in jobs if name in rows])
    return [rows[name] for name in jobs]


def _earlier(table: str) -> dict[str, dict[str, Any]]:
    """Rows of the table of an earlier run, by category; none if there is no such table."""
    if not storage.exists(table):
        return {}
    remedy = "delete it, and run the same command again: finished models are not trained again"
    rows = read_record(table, Rows, remedy).root
    return {row.category: row.model_dump() for row in rows}


def _train_one(request: TrainRequest) -> tuple[dict[str, Any], float]:
    """A job inside a task, which takes no cores: those of the job's own workers count."""
    began = time.perf_counter()
    return train(request), time.perf_counter() - began


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


def _summary(row: Mapping[str, Any]) -> str:
    if row["error"]:
        return f"{row['category']} failed: {row['error']}"
    return f"{row['category']}: {row['model']} in {row['seconds']:,.0f} s"
