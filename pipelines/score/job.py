"""Checks that a score table is the one that a command means, before anything is scored."""

from __future__ import annotations

from collections.abc import Sequence

from ganad.errors import Mismatch, TableError
from ganad.scores.files import list_models
from ganad.scores.records import Job, OldJob, read_job, read_old_job, read_runs, replace_old
from pipelines.passes.listing import BackgroundListing
from pipelines.passes.units import UnitSize


def find_job(table: str, typed: str, ids: Sequence[str], archive: BackgroundListing) -> Job | None:
    """The job of the table; None for a new table. Call it when the first images are listed.

    ids: models that are to score. Raises Mismatch if the table holds other work, and TableError if
    nothing says what it holds.
    """
    job = read_job(table)
    if job is None:
        old = read_old_job(table)
        if old is None:
            if list_models(table):
                raise TableError(f"{typed} holds scores without a _job.json: give a fresh --out")
            return None
        job = Job(manifest=_manifest_of(old, archive), rows_per_unit=old.rows_per_unit)
    if job.manifest != archive.id:
        raise Mismatch(
            f"{typed} holds scores of other images (its manifest was {job.manifest}, now it is "
            f"{archive.id}): give a fresh --out, or the source that the table was begun with (a "
            f"manifest grows by ganad index --refresh)"
        )
    _check_models(table, typed, ids)
    replace_old(table, job)
    return job


def unit_size(job: Job) -> UnitSize:
    """That of the units of a table."""
    return UnitSize(job.rows_per_unit, job.most_rows_per_unit)


def _check_models(table: str, typed: str, ids: Sequence[str]) -> None:
    """Further models may join when those that are there have finished."""
    runs = read_runs(table)
    there = {*list_models(table), *runs}
    unfinished = {model for model in there if model not in runs or not runs[model].finished}
    if set(ids) - there and unfinished - set(ids):
        raise Mismatch(
            f"{typed} holds unfinished work of {', '.join(sorted(unfinished - set(ids)))}: finish "
            f"it with the command that it was begun with, or give a fresh --out"
        )


def _manifest_of(old: OldJob, archive: BackgroundListing) -> str:
    """The manifest's id, if an older table is about the same images."""
    first = archive.parts[0].uri.rpartition("/")[2]
    known = [manifest for manifest in (archive.manifest, archive.before) if manifest is not None]
    digests = {digest for one in known for digest in (one.digest, *one.earlier)}
    if old.first_part == first or old.manifest in digests:
        return archive.id
    if old.manifest is None:
        return f"the one that begins with {old.first_part}"
    return old.manifest
