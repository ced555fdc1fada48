"""Summarises a score table, finished or not, and the work that made it. Run: ganad show TABLE"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ganad.archive.manifest import open_manifest
from ganad.errors import ArchiveError
from ganad.scores.notes import kind_of, kinds_of, read_notes, summary
from ganad.scores.records import Run
from ganad.scores.table import ScoreTable
from pipelines.console.progress import duration
from pipelines.passes.engines import described

Line = tuple[str, str]
BAR = 30
NUM_KINDS = 8
SLOW = 1.5
"""A part is reported as slow if its seconds per image exceed the median by this factor."""


def lines_of_table(table: ScoreTable) -> list[Line]:
    """The lines of the summary. Reads the current state, also while a job runs."""
    counts = table.counts()
    work = summary(read_notes(table))
    return [
        ("table", table.uri),
        *_state(table, counts),
        *_models(counts),
        *_engines(table.runs),
        *_failures(table.failures()),
        *_stages(work),
        *_periods(work),
        *_slowest(work),
        *_retried(work, table.last_run),
    ]


def _state(table: ScoreTable, counts: Mapping[str, Mapping[str, int]]) -> Iterator[Line]:
    run = table.last_run
    if run is not None:
        yield "state", f"finished at {run.finished_at}"
        yield "source", table.manifest_uri
        if run.num_damaged:
            yield "damaged", f"{run.num_damaged:,} of the shards, so images are missing"
        yield "command", " ".join(run.command)
        yield from (("wrong", problem) for problem in table.check_counts(counts))
        return
    total = _num_images(table)
    for model in table.unfinished:
        done = counts[model]["in"] if model in counts else 0
        images = f"{done:,} images so far, listing continues"
        if total is not None:
            images = f"{done:,} of {total:,} images"
        name = f"{model}, " if len({*table.models, *table.runs}) > 1 else ""
        yield "state", f"unfinished: {name}{images}; run the same ganad score to continue"


def _num_images(table: ScoreTable) -> int | None:
    """Number of images; None during the listing, or if the manifest is gone."""
    try:
        return open_manifest(table.manifest_uri).num_images
    except ArchiveError:
        return None


def _models(counts: Mapping[str, Mapping[str, int]]) -> Iterator[Line]:
    for model, count in counts.items():
        yield (
            model,
            f"{count['in']:,} images, {count['scored']:,} scored, {count['failed']:,} failed",
        )


def _engines(runs: Mapping[str, Run]) -> Iterator[Line]:
    """The engine of each model that another one was tried for, and how those did."""
    for model, run in runs.items():
        for trial in run.engine_trials:
            taken = ", which scores" if trial["engine"] == run.engine else ""
            yield "engine", f"{model} by {trial['engine']}{taken}: {described(trial)}"


def _failures(failures: Mapping[str, int]) -> Iterator[Line]:
    """One line per kind of error, with its count and its most frequent text."""
    kinds = kinds_of(failures)
    for kind in list(kinds)[:NUM_KINDS]:
        text = next(text for text in failures if kind_of(text) == kind)
        yield "failed", f"{kinds[kind]:,} {kind}" + (f", such as: {text}" if text != kind else "")
    if len(kinds) > NUM_KINDS:
        yield "failed", f"{sum(list(kinds.values())[NUM_KINDS:]):,} other errors"


def _stages(work: Mapping[str, Any]) -> Iterator[Line]:
    for stage, facts in work.get("stages", {}).items():
        rate = "" if facts["images_per_s"] is None else f", {facts['images_per_s']:,}/s per worker"
        yield stage, f"{facts['images']:,} images in {duration(facts['seconds'])} of work{rate}"


def _periods(work: Mapping[str, Any]) -> Iterator[Line]:
    """A bar per period, for images per second."""
    periods = work.get("periods", [])
    most = max((period["images_per_s"] for period in periods), default=0) or 1
    for period in periods:
        bar = "█" * round(BAR * period["images_per_s"] / most)
        yield f"from {period['from']}", f"{bar} {period['images_per_s']:,} images/s"


def _slowest(work: Mapping[str, Any]) -> Iterator[Line]:
    slow = [part for part in work.get("slowest", []) if (part["times_the_usual"] or 0) >= SLOW]
    if work and not slow:
        yield "slow", f"no part took more than {SLOW} times the median per image"
    for part in slow:
        yield (
            "slow",
            f"{part['part']}, {part['times_the_usual']} times the median: {part['images']:,} "
            f"images from {part['first']}, decoded in {duration(part['decode_s'])}, scored in "
            f"{duration(part['score_s'])}",
        )


def _retried(work: Mapping[str, Any], run: Run | None) -> Iterator[Line]:
    for reason, num in work.get("retries", {}).items():
        yield "retried", f"{num:,} fetches: {reason}"
    if work.get("restarts"):
        yield "retried", f"{work['restarts']:,} workers died and were restarted"
    if run is not None and (num := run.timings.get("images_retried")):
        yield "retried", f"{num:,} images with errors were scored again by the last run"
