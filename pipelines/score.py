"""Score an archive with trained models. Run: ganad score MODEL... SOURCE --out TABLE

The archive is cut into units of rows. Each unit becomes one file per model, named after the unit
and written whole, so a file that exists is work that is done: after any crash the same command
does the units whose files are missing, and every image ends up in the table once.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import ray

from ganad.archive import storage
from ganad.archive.decode import Preprocessing
from ganad.archive.manifest import Manifest
from ganad.archive.patience import JOB_PATIENCE_S, patiently
from ganad.errors import TableError
from ganad.history import kinds_of, read_notes, summary
from ganad.model import read_info, versions
from ganad.table import ScoreTable
from pipelines.cluster import connected, share
from pipelines.graph import stream
from pipelines.identity import claim
from pipelines.progress import Meter, say
from pipelines.scorer import Scorer, distinct, part_uri
from pipelines.source import resolve
from pipelines.units import Unit, cut, rows_per_unit

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
    dry_run: bool = False,
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
    if dry_run:
        plan = {"models": ids, "source": list(source), "out": table, "workers": workers}
        print(json.dumps(plan, indent=2))
        return plan
    manifest = resolve(source, storage.join(table, "_manifest"), out, refresh=True)
    with connected(debug):
        resources = share(workers, gpu, cores=cores)
        rows = rows_per_unit(preprocessings, manifest.num_images, resources.num_workers)
        job = _claim(table, out, ids, manifest, rows)
        units = cut(manifest.parts, job["rows_per_unit"])
        missing = _missing(table, ids, units, retry_failed)
        again = len(missing) - len(_missing(table, ids, units, False)) if retry_failed else 0
        already = manifest.num_images - sum(unit.num for unit in missing)
        if already:
            say(f"{already:,} of {manifest.num_images:,} images are scored already")
        totals: Counter[str] = Counter()
        failures: Counter[str] = Counter()
        first_result_s = None
        if missing:
            # Until it is written anew, the table is unfinished.
            storage.remove(storage.join(table, "run.json"))
            locations = [storage.absolute(model) for model in models]
            with Meter("scoring", manifest.num_images, "images", already) as meter:
                arguments = {
                    "models": locations,
                    "table": table,
                    "num_threads": max(1, int(resources.cpus)),
                }
                for row in stream(missing, Scorer, arguments, preprocessings, resources):
                    report = json.loads(row["report"])
                    first_result_s = first_result_s or time.perf_counter() - began
                    failures.update(report.pop("failures"))
                    totals.update(report)
                    meter.update(already + int(totals["rows"]), _remark(failures, totals))
    run = patiently(lambda: _finish(table, models, infos, manifest, started), table, JOB_PATIENCE_S)
    run["timings"] = {
        "wall_s": round(time.perf_counter() - began, 3),
        "until_first_result_s": round(first_result_s or 0.0, 3),
        "images_scored_now": int(totals["rows"]),
        **{f"{stage}_s": round(totals[f"{stage}_s"], 3) for stage in ("decode", "score", "write")},
        "workers": resources.num_workers,
        "parts_done_before": len(units) - len(missing),
        "parts_scored_again": again,
    }
    place = storage.join(table, "run.json")
    patiently(lambda: storage.write_json(place, run), place, JOB_PATIENCE_S)
    return run


def _remark(failures: Counter[str], totals: Counter[str]) -> str:
    """What a person who watches should know beside the rate."""
    said = []
    if failures:
        kind, num = Counter(kinds_of(failures)).most_common(1)[0]
        of_which = f", most of them {kind}" if num < failures.total() else f": {kind}"
        said.append(f"{failures.total():,} failed{of_which}")
    if totals["retries"]:
        said.append(f"{int(totals['retries']):,} requests repeated")
    return ", ".join(said)


def _claim(table: str, typed: str, ids: list[str], manifest: Manifest, rows: int) -> dict[str, Any]:
    """job.json of the table: written by the first run, checked by the later ones."""
    uri = storage.join(table, "job.json")
    before: dict[str, Any] = {}
    if storage.exists(uri):  # a resume cuts the units as the first run did
        before = storage.read_json(uri)
        rows = int(before.get("rows_per_unit", rows))
    elif any(name.startswith("model=") for name in storage.list_names(table)):
        raise TableError(f"{typed} holds scores without a job.json: give a fresh --out")
    # The parts of a manifest that grew begin with those of before, so the units do as well.
    grown = before.get("manifest") in manifest.earlier
    digest = before["manifest"] if grown else manifest.digest
    images = before["images"] if grown else manifest.num_images
    job = {"models": sorted(ids), "manifest": digest, "images": images, "rows_per_unit": rows}
    claim(
        table,
        "job.json",
        job,
        typed,
        "give a fresh --out, or the models and source that the table was begun with (a manifest "
        "grows by ganad index --refresh)",
    )
    if grown:
        job |= {"manifest": manifest.digest, "images": manifest.num_images}
        storage.write_json(uri, job)
    return job


def _missing(table: str, ids: list[str], units: list[Unit], retry_failed: bool) -> list[Unit]:
    """Units without a file for every model; with retry_failed also those that have errors."""
    done = set(range(len(units)))
    for model_id in ids:
        names = set(storage.list_names(storage.join(table, f"model={model_id}")))
        done = {n for n in done if part_uri("", model_id, n).rsplit("/", 1)[1] in names}
    if retry_failed and done:
        done -= {
            int(file.rsplit("part-", 1)[1].split(".")[0])
            for file in ScoreTable(table).files_with_errors()
        }
    return [unit for unit in units if unit.number not in done]


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
