"""List the images of an archive. Run: ganad index SOURCE... --out MANIFEST"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence

from ganad.archive import storage
from ganad.archive.manifest import Manifest, write_manifest
from pipelines.progress import counted, say

SHOWN = 8
"""Labels and names that are written out before the rest is counted."""


def index(
    sources: Sequence[str],
    out: str,
    *,
    labels: str | None = None,
    normal: Sequence[str] = (),
    abnormal: Sequence[str] = (),
    dry_run: bool = False,
) -> Manifest:
    """Write the manifest of the sources' images to out, and say what is in it.

    dry_run lists all the same but keeps nothing: it prints as JSON what the manifest would hold.
    Raises ArchiveError for sources and ConfigError for labels.
    """

    def write(folder: str) -> Manifest:
        with counted("listing", "images") as found:
            return write_manifest(
                sources, folder, labels=labels, normal=normal, abnormal=abnormal, progress=found
            )

    if dry_run:
        with tempfile.TemporaryDirectory(prefix="ganad-") as folder:
            manifest = write(storage.join(folder, "manifest"))
            print(json.dumps(_plan(manifest, out), indent=2, ensure_ascii=False))
    else:
        manifest = write(out)
        say(f"{out}: {_contents(manifest)}")
    for note in _remarks(manifest):
        say(note)
    return manifest


def _plan(manifest: Manifest, out: str) -> dict[str, object]:
    first = manifest.rows(manifest.parts[0], 0, SHOWN)
    return {
        "source": manifest.sources,
        "out": storage.absolute(out),
        "images": manifest.num_images,
        "normal": manifest.num_normal,
        "abnormal": manifest.num_abnormal,
        "labels": manifest.labels,
        "first": [row["name"] for row in first],
    }


def _contents(manifest: Manifest) -> str:
    """How many images, and of which labels, in one line."""
    text = _count(manifest.num_images, "image")
    if manifest.num_normal or manifest.num_abnormal:
        text += f", {manifest.num_normal:,} normal and {manifest.num_abnormal:,} abnormal"
    if manifest.labels:
        most = sorted(manifest.labels.items(), key=lambda item: (-item[1], item[0]))
        shown = ", ".join(f"{label} {num:,}" for label, num in most[:SHOWN])
        rest = f" and {len(most) - SHOWN:,} more" if len(most) > SHOWN else ""
        text += f" ({shown}{rest})"
    return text


def _remarks(manifest: Manifest) -> Iterator[str]:
    """What was left out or joined, and what else the user should know."""
    if manifest.merged:
        yield (
            f"{_count(manifest.merged, 'duplicate')} merged: an image that is named more than "
            f"once, by two sources for example, is listed once"
        )
    if manifest.num_skipped:
        are = "is no image and was" if manifest.num_skipped == 1 else "are no images and were"
        yield f"{_count(manifest.num_skipped, 'file')} {are} left out"
    yield from manifest.notes


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
