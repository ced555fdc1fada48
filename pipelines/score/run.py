"""Score an archive with trained models. Run: ganad score MODEL... SOURCE --out TABLE

The archive is cut into units of rows. Each unit becomes one file per model, named after the unit
and written whole, so a file that exists is work that is done: after any crash the same command
does the units whose files are missing, and every image ends up in the table once. Units are
numbered in the order of the manifest's parts, so an archive is scored while its listing goes on.
"""

from __future__ import annotations

from collections.abc import Sequence

from ganad.scores.files import MANIFEST
from ganad.scores.records import Run
from ganad.storage import files as storage
from pipelines.cluster.connection import allocate, connected
from pipelines.passes.engines import EAGER
from pipelines.passes.listing import BackgroundListing
from pipelines.score.finish import finish
from pipelines.score.job import find_job, unit_size
from pipelines.score.levels import levels_of
from pipelines.score.plan import Plan
from pipelines.score.totals import JOINED, LEFT, LISTED, Totals
from pipelines.score.work import ModelFolder, Scoring


def score(
    models: Sequence[str],
    source: Sequence[str],
    out: str,
    *,
    workers: int | None = None,
    gpu: bool | None = None,
    retry_failed: bool = False,
    cores: int | None = None,
    engine: str = EAGER,
    regions: bool = False,
    debug: bool = False,
) -> dict[str, Run]:
    """Score every image of source with every model into the table at out; returns runs by model.

    cores: of each worker without a GPU; left out, the workers share all. engine: eager, auto, or
    the name of one; see pipelines.passes.engines. regions: also write where images are unusual, for
    models that make heat maps; see pipelines.score.levels.
    """
    totals, table = Totals(), storage.absolute(out)
    saved = [ModelFolder.read(model) for model in models]
    ids = [model.id for model in saved]
    with BackgroundListing(source, storage.join(table, MANIFEST), out) as archive:
        archive.wait_for_start()
        totals.reached(LISTED)
        job = find_job(table, out, ids, archive)
        levels = levels_of(saved, table, out, regions)
        with connected(debug):
            totals.reached(JOINED)
            resources = allocate(workers, gpu, cores=cores)
            scoring = Scoring(saved, table, archive, resources, totals, engine, levels)
            job = job or scoring.begin()
            size = unit_size(job)
            units = Plan(table, ids, size)
            for parts in archive.rounds():
                archive.report()
                scoring.score(units.add(parts), units.num_images_before)
            if scoring.remove_damaged(units.files):
                units = Plan(table, ids, size)
                scoring.score(units.add(archive.parts), units.num_images_before)
            if retry_failed:
                scoring.retry(size)
        totals.reached(LEFT)
        archive.report()
    return finish(table, list(scoring.runs.values()), archive.wait_for_end(), totals)
