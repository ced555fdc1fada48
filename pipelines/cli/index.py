"""Lists the images of an archive. Run: ganad index SOURCE... --out MANIFEST"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence

from ganad.archive.manifest import Manifest, is_manifest, open_manifest, write_manifest
from ganad.archive.manifest_file import NAME
from ganad.errors import ArchiveError
from ganad.storage import files as storage
from pipelines.console.progress import counted, say

SHOWN = 8
"""Maximum number of labels and of names to print."""


def index(
    sources: Sequence[str],
    out: str,
    *,
    labels: str | None = None,
    normal: Sequence[str] = (),
    abnormal: Sequence[str] = (),
    refresh: bool = False,
    dry_run: bool = False,
) -> Manifest:
    """Write the manifest of the sources' images to `out`, and print a summary.

    refresh: keep the rows of the manifest at `out`, and add images that it does not list yet.
    dry_run: list the images, print a summary as JSON and keep nothing. Raises ConfigError for
    labels and ArchiveError for sources; for shards that could not be listed completely, after the
    manifest has been written.
    """

    def write(folder: str) -> Manifest:
        with counted("listing", "images") as show:
            return write_manifest(
                sources,
                folder,
                labels=labels,
                normal=normal,
                abnormal=abnormal,
                refresh=refresh,
                progress=show,
            )

    before = open_manifest(out) if refresh and is_manifest(out) else None
    if dry_run:
        with tempfile.TemporaryDirectory(prefix="ganad-") as folder:
            copy = storage.join(folder, "manifest")
            if before is not None:
                _copy(before, copy)
            manifest = write(copy)
            plan = _plan(manifest, out)
            if before is not None:
                plan["new"] = manifest.num_images - before.num_images
            print(json.dumps(plan, indent=2, ensure_ascii=False))
    else:
        manifest = write(out)
        new = "" if before is None else f", {manifest.num_images - before.num_images:,} of them new"
        say(f"{out}: {_contents(manifest)}{new}")
    for note in _notes(manifest):
        say(note)
    if manifest.num_damaged:
        raise ArchiveError(
            f"{out}: {_count(manifest.num_damaged, 'shard')} could not be listed completely, so "
            f"images are missing; repair the shards, then index into another folder"
        )
    return manifest


def _copy(manifest: Manifest, folder: str) -> None:
    for uri in (*(part.uri for part in manifest.parts), storage.join(manifest.uri, NAME)):
        data = storage.read_bytes(uri)
        storage.write_bytes(storage.join(folder, uri.rpartition("/")[2]), data)


def _plan(manifest: Manifest, out: str) -> dict[str, object]:
    first = manifest.rows(manifest.parts[0], 0, SHOWN)
    return {
        "source": manifest.sources,
        "out": storage.absolute(out),
        "images": manifest.num_images,
        "normal": manifest.num_normal,
        "abnormal": manifest.num_abnormal,
        "errors": manifest.num_errors,
        "labels": manifest.labels,
        "first": [row["name"] for row in first],
    }


def _contents(manifest: Manifest) -> str:
    """Number of images and labels, in one line."""
    text = _count(manifest.num_images, "image")
    if manifest.num_normal or manifest.num_abnormal:
        text += f", {manifest.num_normal:,} normal and {manifest.num_abnormal:,} abnormal"
    if manifest.labels:
        most = sorted(manifest.labels.items(), key=lambda item: (-item[1], item[0]))
        shown = ", ".join(f"{label} {num:,}" for label, num in most[:SHOWN])
        rest = f" and {len(most) - SHOWN:,} more" if len(most) > SHOWN else ""
        text += f" ({shown}{rest})"
    return text


def _notes(manifest: Manifest) -> Iterator[str]:
    """Yield notes on images that were left out, merged or cannot be read, and those stored."""
    if manifest.num_errors:
        yield (
            f"{_count(manifest.num_errors, 'image')} cannot be read and will have an error instead "
            f"of a score; see the column error"
        )
    if manifest.merged:
        yield (
            f"{_count(manifest.merged, 'duplicate')} merged: an image that is named more than "
            f"once, for example by two sources, is listed once"
        )
    if manifest.num_skipped:
        are = "is not an image and was" if manifest.num_skipped == 1 else "are not images and were"
        yield f"{_count(manifest.num_skipped, 'file')} {are} left out"
    yield from manifest.notes


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
