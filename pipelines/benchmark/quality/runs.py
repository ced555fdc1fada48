"""Runs of a benchmark. A run is one Ray task: on a cluster they go in parallel, and what is
finished is not done again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray

from ganad.errors import TrainingError
from pipelines.cluster.connection import connected
from pipelines.console.progress import say

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Run:
    """Something to compute, and the file of its result."""

    place: Path
    known: Mapping[str, Any]
    """Columns that all its rows share."""
    work: Callable[..., Rows]
    arguments: tuple[Any, ...]

    @property
    def title(self) -> str:
        """As messages name it."""
        data, name, seed = (self.known[key] for key in ("data", "detector", "seed"))
        return f"{data}, {name}, seed {seed}"

    @property
    def rows(self) -> Rows:
        """The result; none before the run has ended."""
        return json.loads(self.place.read_text()) if self.place.exists() else []

    def keep(self, rows: Rows) -> None:
        """Write the result; one that is there is whole."""
        self.place.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.place.with_suffix(".part")
        fresh.write_text(json.dumps([{**self.known, **row} for row in rows], indent=2))
        fresh.rename(self.place)

    def failed(self, error: str) -> dict[str, Any]:
        """The row of a run without a result."""
        return {**self.known, "error": error}


def place_of(folder: Path, data: str, detector: str, seed: int) -> Path:
    """Where the result of a run lies."""
    data_set = data.replace(":", "-").replace("/", "_")
    return folder / "runs" / f"{data_set}-{detector}-seed{seed}.json"


def carry_out(runs: Sequence[Run], cores: int, debug: bool) -> Iterator[tuple[Run, str | None]]:
    """Do the runs without a result; yields each when it has ended, with an error or None.

    cores: of a run; each takes a GPU where there are some. A run that fails does not stop others.
    """
    with connected(debug):
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        waiting = {}
        for run in runs:
            if not run.place.exists():
                task = ray.remote(num_cpus=cores, num_gpus=gpus, max_retries=3)(run.work)
                waiting[task.remote(*run.arguments)] = run
        while waiting:
            (done,), _ = ray.wait(list(waiting))
            run = waiting.pop(done)
            try:
                found = ray.get(done)
            except ray.exceptions.RayTaskError as error:
                say(f"{run.title}: {error.cause}")
                yield run, str(error.cause)
                continue
            run.keep(found)
            say(f"{run.title} is done ({len(waiting)} runs to go)")
            yield run, None


def report(
    runs: Sequence[Run],
    folder: Path,
    name: str,
    as_markdown: Callable[[Rows], str],
    cores: int,
    debug: bool,
) -> str:
    """Do the runs without a result, and write FOLDER/NAME.parquet, a row per row of a run, and
    FOLDER/NAME.md, which is returned. Raises TrainingError at the end if some failed."""
    failed = [run.failed(why) for run, why in carry_out(runs, cores, debug) if why is not None]
    rows = [row for run in runs for row in run.rows]
    folder.mkdir(parents=True, exist_ok=True)
    if rows:
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    text = as_markdown(rows)
    (folder / f"{name}.md").write_text(text)
    refuse(failed)
    return text


def refuse(failed: Rows) -> None:
    """Raises TrainingError, which names the first, if some runs failed."""
    if failed:
        raise TrainingError(f"{len(failed)} runs failed, the first: {failed[0]['error']}")


def spread(values: Iterable[float | None]) -> str:
    """Mean ± sample standard deviation of the values that are there; empty without any."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return f"{known[0]:.3f}" if known else ""
    return f"{mean(known):.3f} ± {stdev(known):.3f}"
