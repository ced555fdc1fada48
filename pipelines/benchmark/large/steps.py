"""What a benchmark of many rows measures and no command does alone; each runs in its own process.

Run: python -m pipelines.benchmark.large.steps STEP ARGUMENT...
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing, suppress

from ganad.browse.selection import Rows, Selection
from ganad.errors import TableError
from ganad.evaluation.flags import highest
from ganad.evaluation.labelled import Labelled
from ganad.report.figures import Source, histogram, thresholds, uniformity
from ganad.report.scale import NUM_TYPICAL, typical_rows
from ganad.scores.files import MANIFEST
from ganad.scores.table import ScoreTable
from ganad.storage import files as storage
from pipelines.passes.listing import BackgroundListing
from pipelines.score.job import find_job, unit_size
from pipelines.score.plan import Plan

NUM_WORST = 24
"""Images of a model in a report."""


def plan(table: str, model: str, manifest: str) -> None:
    """What a job does until it knows its first unit. model: its id."""
    with BackgroundListing([manifest], storage.join(table, MANIFEST), table) as archive:
        archive.wait_for_start()
        job = find_job(table, table, [model], archive)
        assert job is not None
        units = Plan(table, [model], unit_size(job))
        for parts in archive.rounds():
            units.add(parts)


def report(table: str) -> None:
    """The SQL of ganad report, for each model, without its pictures."""
    scores = ScoreTable(table)
    with suppress(TableError):  # as there: a report needs no labels
        Labelled(scores)
    scores.counts()
    scores.failures()
    with closing(scores.session()) as session:
        for model in scores.models:
            source = Source(session, "scores", model)
            flags = thresholds(source)
            histogram(source, next(iter(flags), None))
            uniformity(source, None)
            session.query(highest([model], NUM_WORST))
            typical_rows(session, model, "image_id, uri, score", NUM_TYPICAL)


def browse(table: str) -> None:
    """The SQL of the first page of ganad browse."""
    scores = ScoreTable(table)
    with closing(Rows(scores)) as rows:
        selection = Selection.parse({}, scores.models)
        rows.count(selection)
        rows.page(selection)
        rows.choices(selection.model)


STEPS: dict[str, Callable[..., None]] = {"plan": plan, "report": report, "browse": browse}

if __name__ == "__main__":
    STEPS[sys.argv[1]](*sys.argv[2:])
