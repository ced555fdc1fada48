"""Score an archive with trained models. Run: ganad score MODEL... SOURCE --out TABLE

The archive is cut into units of rows. Each unit becomes one file per model, named after the unit
and written whole, so a file that exists is work that is done: after any crash the same command
does the units whose files are missing, and every image ends up in the table once. Units are
numbered in the order of the manifest's parts, so an archive is scored while its listing goes on.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import ray

from ganad.archive.manifest import Manifest
from ganad.errors import TableError
from ganad.images.decode import Preprocessing
from ganad.saved import read_info, versions
from ganad.scores.notes import kinds_of, read_notes, summary
from ganad.scores.table import ScoreTable
from ganad.storage import files as storage
from ganad.storage.retry import JOB_PATIENCE_S, patiently
from pipelines.cluster.connection import connected, share
from pipelines.console.progress import Meter, say
from pipelines.passes.listing import BackgroundListing
from pipelines.passes.stream import stream
from pipelines.passes.units import rows_per_unit
from pipelines.passes.worker import distinct
from pipelines.score.job import claim_job, may_begin
from pipelines.score.plan import Plan
from pipelines.score.scorer import Scorer
from pipelines.score.tally import Tally

NUM_FAILURES = 100
"""Texts of errors that run.json holds, the most frequent; the table holds them all."""


def score(
    models: Sequence[str],
    source: Sequence[str],
    out: str,
    *,
    workers: int | None = None,
    gpu: bool | None = None,
    retry_failed: bool = False,
    cores: int | None = None,
    debug: bool = False,
) -> dict[str, Any]:
    """Score every image of source with every model into the table at out; returns run.json.

    cores: of each worker without a GPU; left out, the workers share all.
    """
    started, began = datetime.now(UTC), time.perf_counter()
    table = storage.absolute(out)
    infos = [dict(read_info(model)) for model in models]
    ids = [info["id"] for info in infos]
    preprocessings = distinct([Preprocessing(**info["preprocessing"]) for info in infos])
    with BackgroundListing(source, storage.join(table, "_manifest"), out) as archive:
        if may_begin(table, archive.before):
            archive.wait_for_start()
        else:
            archive.wait_for_end()
        with connected(debug):
            resources = share(workers, gpu, cores=cores)
            rows = rows_per_unit(preprocessings, archive.num_images, resources.num_workers)
            plan = Plan(table, ids, retry_failed)
            arguments = {
                "models": [storage.absolute(model) for model in models],
                "table": table,
                "num_threads": resources.threads,
            }
            tally, known, whole = Tally(began), 0, False
            for parts in archive.rounds():
                if not whole:
                    whole = archive.manifest is not None
                    job = claim_job(table, out, ids, archive, rows)
                    archive.report()
                missing = plan.add(parts, job["rows_per_unit"])
                already = plan.num_images_before
                if already > known:
                    of = f" of {archive.num_images:,}" if whole else ""
                    say(f"{already:,}{of} images are scored already")
                    known = already
                if missing:
                    # Until it is written anew, the table is unfinished.
                    storage.remove(storage.join(table, "run.json"))
                    scored = already + tally.rows
                    with Meter("scoring", archive.num_images, "images", scored) as meter:
                        for row in stream(missing, Scorer, arguments, preprocessings, resources):
                            tally.add(json.loads(row["report"]))
                            meter.expect(archive.num_images, archive.manifest is None)
                            meter.update(already + tally.rows, tally.remark())
        manifest = archive.wait_for_end()
        if not whole:
            claim_job(table, out, ids, archive, rows)
            archive.report()
    run = patiently(lambda: _finish(table, models, infos, manifest, started), table, JOB_PATIENCE_S)
    run["timings"] = {
        **tally.timings(),
        "workers": resources.num_workers,
        **plan.facts(),
    }
    place = storage.join(table, "run.json")
    patiently(lambda: storage.write_json(place, run), place, JOB_PATIENCE_S)
    return run


def _finish(
    table: str,
    models: Sequence[str],
    infos: list[dict[str, Any]],
    manifest: Manifest,
    started: datetime,
) -> dict[str, Any]:
    """Count what lies in the table; raises TableError unless every image is there once."""
    scores = ScoreTable(table)
    counts, failures = scores.counts(), scores.failures()
    for info in infos:
        found = counts.get(info["id"], {"in": 0, "distinct": 0})
        if found["in"] != manifest.num_images or found["distinct"] != manifest.num_images:
            raise TableError(
                f"{table} has {found['in']:,} rows ({found['distinct']:,} images) of {info['id']} "
                f"for {manifest.num_images:,} images: run the same command again"
            )
    return {
        "format": 1,
        "command": sys.argv,
        "models": [
            {
                "model": info["id"],
                "path": storage.absolute(path),
                "detector": info["detector"],
                "config": info["config"],
            }
            for info, path in zip(infos, models, strict=True)
        ],
        "manifest": {
            "uri": manifest.uri,
            "digest": manifest.digest,
            "images": manifest.num_images,
        },
        "counts": counts,
        "failure_kinds": kinds_of(failures),
        "failures": dict(islice(failures.items(), NUM_FAILURES)),
        "work": summary(read_notes(scores)),
        "versions": versions() | {"ray": ray.__version__},
        "started_at": started.isoformat(),
        "finished_at": datetime.now(UTC).isoformat(),
    }
