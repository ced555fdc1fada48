"""job.json of a score table: which models score which images, and how these are cut into units.

While its images are still being listed it names the first part of their manifest, in whose name is
chance; afterwards the manifest's digest and its images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ganad.archive.manifest import Manifest
from ganad.errors import TableError
from ganad.storage import files as storage
from pipelines.passes.claim import claim
from pipelines.passes.listing import BackgroundListing

_REMEDY = (
    "give a fresh --out, or the models and source that the table was begun with (a manifest grows "
    "by ganad index --refresh)"
)


def may_begin(table: str, before: Manifest | None) -> bool:
    """Whether units may be scored before the listing has ended: where no other parts than those of
    before, or of a listing that was cut off, can be the table's."""
    job = _read(table)
    if "manifest" not in job:
        return True
    return before is not None and job["manifest"] in (before.digest, *before.earlier)


def claim_job(
    table: str, typed: str, ids: Sequence[str], archive: BackgroundListing, rows: int
) -> dict[str, Any]:
    """What job.json says: written by the first run, checked by the later ones, completed when the
    listing has ended. rows: of a unit, where the table has none yet.

    Raises Mismatch if the table holds other work, TableError if nothing says what it holds.
    """
    before = _read(table)
    if before:  # a resume cuts the units as the first run did
        rows = int(before.get("rows_per_unit", rows))
    elif any(name.startswith("model=") for name in storage.list_names(table)):
        raise TableError(f"{typed} holds scores without a job.json: give a fresh --out")
    manifest = archive.manifest
    models = {"models": sorted(ids)}
    if manifest is None and "manifest" in before:  # of which may_begin was sure
        claim(table, "job.json", {**before, **models}, typed, _REMEDY)
        return before
    if manifest is None or "first_part" in before:
        first = archive.parts[0].uri.rpartition("/")[2]
        begun = {**models, "first_part": first, "rows_per_unit": rows}
        claim(table, "job.json", begun, typed, _REMEDY)
        if manifest is None:
            return begun
    job = {
        **models,
        "manifest": manifest.digest,
        "images": manifest.num_images,
        "rows_per_unit": rows,
    }
    # The parts of a manifest that grew begin with those of before, so the units do as well.
    grown = before.get("manifest") in manifest.earlier
    if "first_part" not in before:
        theirs = {key: before[key] for key in ("manifest", "images")} if grown else {}
        claim(table, "job.json", {**job, **theirs}, typed, _REMEDY)
    if grown or "first_part" in before:
        storage.write_json(storage.join(table, "job.json"), job)
    return job


def _read(table: str) -> dict[str, Any]:
    uri = storage.join(table, "job.json")
    return dict(storage.read_json(uri)) if storage.exists(uri) else {}
