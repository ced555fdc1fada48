"""SOURCE as typed -> a manifest: one that exists, or one made from folders, globs, prefixes."""

from __future__ import annotations

from collections.abc import Sequence

from ganad.archive.manifest import Manifest, is_manifest, open_manifest, write_manifest
from ganad.errors import Mismatch
from ganad.storage import files as storage
from pipelines.console.progress import counted, say


def resolve(sources: Sequence[str], keep_at: str, out: str) -> Manifest:
    """The manifest that sources name, or a new one of these sources written to keep_at.

    A manifest at keep_at that was made from the same sources is taken as it is: the second run of
    a command continues the first, even if the archive has grown meanwhile. One of other sources
    raises Mismatch; out is what the user calls the folder that holds it.
    """
    if len(sources) == 1 and is_manifest(sources[0]):
        return open_manifest(sources[0])
    if is_manifest(keep_at):
        manifest = open_manifest(keep_at)
        if list(manifest.sources) != [storage.absolute(source) for source in sources]:
            raise Mismatch(
                f"{out} holds other work (its source was {' '.join(manifest.sources)}): give a "
                f"fresh --out, or the source that it was begun with"
            )
        return manifest
    with counted("listing", "images") as found:
        manifest = write_manifest(sources, keep_at, progress=found)
    say(f"indexed {manifest.num_images:,} images")
    return manifest
