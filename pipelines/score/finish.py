"""The end of a scoring job: the table is counted, and the run of each model is recorded."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice

import ray

from ganad.archive.manifest import Manifest
from ganad.errors import TableError
from ganad.saved import versions
from ganad.scores.notes import kinds_of, read_notes, summary
from ganad.scores.records import ManifestFacts, Run, write_run
from ganad.scores.table import ScoreTable
from ganad.storage.retry import JOB_PATIENCE_S, patiently
from pipelines.score.totals import COUNTED, Totals

NUM_FAILURES = 100
"""Error texts that a run's record holds, the most frequent; the table holds them all."""


def finish(table: str, begun: Sequence[Run], manifest: Manifest, totals: Totals) -> dict[str, Run]:
    """Record the runs as finished, with counts of what is in the table; returns them by model.

    Raises TableError unless every image is there once for each model.
    """
    return patiently(lambda: _finish(table, begun, manifest, totals), table, JOB_PATIENCE_S)


def _finish(table: str, begun: Sequence[Run], manifest: Manifest, totals: Totals) -> dict[str, Run]:
    scores = ScoreTable(table, [run.model for run in begun])
    counts = scores.counts()
    failures = scores.failures() if any(one["failed"] for one in counts.values()) else {}
    for run in begun:
        found = counts.get(run.model, {"in": 0, "distinct": 0})
        if found["in"] != manifest.num_images or found["distinct"] != manifest.num_images:
            raise TableError(
                f"{table} has {found['in']:,} rows ({found['distinct']:,} images) of {run.model} "
                f"for {manifest.num_images:,} images: run the same command again"
            )
    work = summary(read_notes(scores))
    totals.reached(COUNTED)
    shared = {
        "manifest": ManifestFacts(
            uri=manifest.uri,
            digest=manifest.digest,
            images=manifest.num_images,
            damaged=manifest.num_damaged,
        ),
        "failure_kinds": kinds_of(failures),
        "failures": dict(islice(failures.items(), NUM_FAILURES)),
        "work": work,
        "timings": totals.timings(),
        "versions": versions() | {"ray": ray.__version__},
        "command": sys.argv,
        "finished_at": datetime.now(UTC),
    }
    runs = {
        run.model: run.model_copy(update={**shared, "counts": counts[run.model]}) for run in begun
    }
    for run in runs.values():
        write_run(table, run)
    return runs
