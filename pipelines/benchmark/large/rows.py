"""What a table of very many rows costs, no image opened. Run: ganad benchmark rows --out FOLDER

Each step runs in a process of its own, from its start to its end, so that its memory is its own.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ganad.saved import read_info
from ganad.scores.files import list_files
from ganad.scores.records import read_runs
from pipelines.benchmark.large import steps
from pipelines.benchmark.large.synthetic import write_archive
from pipelines.benchmark.processes import command, measured
from pipelines.benchmark.scoring_data import untrained
from pipelines.console.progress import say

QUESTIONS = {
    "the 20 highest scores": ["--top", "20"],
    "images with p < .01, counted": [
        "SELECT model, count(*) FILTER (p_value < 0.01) AS flagged FROM scores GROUP BY model"
    ],
    "the 1,000 highest by `--budget`": ["--budget", "1000"],
}
Run = Callable[[list[str]], tuple[float, float]]
"""Runs words in a process of its own: seconds, and peak memory in MiB."""


@dataclass(frozen=True)
class Cost:
    """Of one step."""

    what: str
    num_rows: int
    num_files: int
    """Of the table when the step began."""
    seconds: float
    processor_s: float | None = None
    """Of the process and those that it started and waited for, which others on the machine change
    less."""
    peak_mib: float | None = None
    """Resident memory of the process at its highest; of a job, that of its driver."""


def rows(out: str, nums: Sequence[int]) -> list[Cost]:
    """Measure tables of these numbers of rows; writes OUT/rows.json and OUT/rows.md.

    The manifests and tables stay in OUT for the next time: 6 GB for 100 million rows.
    """
    folder = Path(out).absolute()
    model = folder / "model"
    if not model.exists():
        untrained(model)
    costs: list[Cost] = []
    for num in nums:
        archive = write_archive(folder / f"rows-{num}", str(model), num)
        table = folder / f"measured-{num}"
        shutil.rmtree(table, ignore_errors=True)
        # Files of a table are replaced and removed, never changed, so links serve as a copy.
        shutil.copytree(archive.table, table, copy_function=os.link)
        for cost in _costs(archive.manifest, str(table), str(model), num):
            worked = "" if cost.processor_s is None else f", {cost.processor_s} s of processors"
            peak = "" if cost.peak_mib is None else f", {cost.peak_mib} MiB"
            say(f"{cost.num_rows:,} rows, {cost.what}: {cost.seconds} s{worked}{peak}")
            costs.append(cost)
            (folder / "rows.json").write_text(json.dumps([*map(asdict, costs)], indent=2))
        shutil.rmtree(table)
    (folder / "rows.md").write_text(as_markdown(costs))
    return costs


def as_markdown(costs: Sequence[Cost]) -> str:
    """A line for each step, a pair of columns for each number of rows."""
    nums = list(dict.fromkeys(cost.num_rows for cost in costs))
    found = {(cost.what, cost.num_rows): cost for cost in costs}
    lines = [
        "| |" + "".join(f" {num:,} rows, s | of processors | MiB |" for num in nums),
        "|---|" + "---|---|---|" * len(nums),
    ]
    for what in dict.fromkeys(cost.what for cost in costs):
        cells = [found[what, num] for num in nums]
        values = [value for c in cells for value in (c.seconds, c.processor_s, c.peak_mib)]
        shown = ("" if value is None else f" {value:,g} " for value in values)
        lines.append(f"| {what} |" + "|".join(shown) + "|")
    for state, cost in (("before", costs[0]), ("after", costs[-1])):
        numbers = ", ".join(f"{found[cost.what, num].num_files:,}" for num in nums)
        lines.append(f"\nFiles {state} `ganad compact`: {numbers}")
    return "\n".join(lines) + "\n"


def _costs(manifest: str, table: str, model: str, num: int) -> Iterator[Cost]:
    def cost(what: str, words: list[str], run: Run = command) -> Cost:
        num_files = len(list_files(table))
        before = _processor_s()
        seconds, peak = run(words)
        worked = _processor_s() - before
        return Cost(what, num, num_files, round(seconds, 1), round(worked, 1), round(peak))

    id = read_info(model)["id"]
    yield cost("open the manifest, plan", ["plan", table, id, manifest], _step)
    resume = ["score", model, manifest, "--out", table, "--workers", "1", "--no-gpu"]
    yield cost("`ganad score`, one unit missing", resume)
    first = round(read_runs(table)[id].timings["until_first_result_s"], 1)
    yield Cost("the same until its first result", num, len(list_files(table)), first)
    for state in ("", ", compacted"):
        if state:
            yield cost("`ganad compact`", ["compact", table])
        yield cost(f"`ganad show`{state}", ["show", table])
        for what, question in QUESTIONS.items():
            yield cost(f"`ganad query`, {what}{state}", ["query", table, *question])
        yield cost(f"SQL of `ganad report`{state}", ["report", table], _step)
        yield cost(f"SQL of `ganad browse`, first page{state}", ["browse", table], _step)


def _processor_s() -> float:
    """Of the processes that have ended and been waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _step(words: list[str]) -> tuple[float, float]:
    return measured(["-m", steps.__name__, *words])
