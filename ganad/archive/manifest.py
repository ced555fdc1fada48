"""Writes a manifest: the list of an archive's images as Parquet parts and a manifest.json.

manifest.json is written last and names its parts. A folder without it is not a manifest, and a
manifest that is rewritten stays the old one until the new one is complete. A refresh keeps the
parts and adds new ones, so that work done part by part continues with the new ones only. Parts that
are used before the listing ends are kept in the same way; see ganad.archive.unfinished.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from ganad.archive.labels import Naming, read_labels
from ganad.archive.layout import Surroundings
from ganad.archive.listing import Listing, are_apart, check_any
from ganad.archive.manifest_file import NAME, Manifest, is_manifest, open_manifest
from ganad.archive.merge import Merge, open_merge
from ganad.archive.parts import PART, ROWS_PER_GROUP, Part, PartWriter, batches_of, read_rows
from ganad.archive.rows import SCHEMA, Row, label_of
from ganad.archive.unfinished import NAME as UNFINISHED
from ganad.archive.unfinished import Labelling, Unfinished, read_unfinished
from ganad.errors import ConfigError, ManifestError, Mismatch
from ganad.storage import files as storage
from ganad.storage.records import write_record

__all__ = [
    "SCHEMA",
    "Manifest",
    "Part",
    "is_manifest",
    "open_manifest",
    "read_rows",
    "write_manifest",
]

_SCRATCH = ".ganad-merge-"
_LEFT_BEHIND = re.compile(
    r"\.ganad-merge-.+|\.(part-.+\.parquet|manifest(\.unfinished)?\.json)\.[0-9a-f]{8}"
)
"""Temporary files of a run that was killed."""


def write_manifest(
    sources: Sequence[str],
    out: str,
    *,
    labels: str | None = None,
    normal: Collection[str] = (),
    abnormal: Collection[str] = (),
    refresh: bool = False,
    progress: Callable[[int], None] | None = None,
    on_part: Callable[[Part], None] | None = None,
    fresh_id: str = "",
) -> Manifest:
    """List the images of all sources and write their manifest to the folder `out`.

    labels: a CSV (columns path, label and optionally abnormal, mask, split) that replaces the
    labels of the folders. normal, abnormal: labels with that meaning. progress: called with the
    number of images found so far. A manifest of the same sources is replaced. refresh: keep its
    rows, and add images that it does not list yet, labelled in the same way.

    on_part: called with each final part, kept ones first, during the listing. Images that need the
    whole listing come last: those of overlapping sources, with labels from a CSV, or in folders of
    a shard. If the listing then fails or is killed, a refresh keeps these parts and continues after
    them. fresh_id: id of a new manifest; random if empty.

    Raises ArchiveError for sources, ConfigError for labels, and Mismatch or ManifestError if `out`
    holds something else.
    """
    if not sources:
        raise ConfigError("no source was given: name a folder, a glob, an s3:// prefix or a .tar")
    folder = storage.absolute(out)
    absolute = tuple(storage.absolute(source) for source in sources)
    replaced = _claim(out, folder, absolute)
    labelling = Labelling(
        labels=None if labels is None else storage.absolute(labels),
        normal=_sorted_labels(normal),
        abnormal=_sorted_labels(abnormal),
    )
    start = _Start.of(out, folder, absolute, labelling) if refresh else _Start(labelling)
    start.id = start.id or fresh_id or secrets.token_hex(8)
    if not start.token and (replaced or on_part):
        start.token = secrets.token_hex(4)
    if on_part is not None and not start.is_announced:
        follows = start.before.digest if start.before is not None else ""
        begun = Unfinished(
            id=start.id, sources=absolute, named=start.named, follows=follows, token=start.token
        )
        announce: Callable[[Part], None] | None = begun.before_first(folder, on_part)
    else:
        announce = on_part
    surroundings = Surroundings()
    listings = [Listing(source, surroundings) for source in sources]
    writer = PartWriter(folder, start.token, announce)
    try:
        if on_part is not None:
            for part in start.parts:  # before counting them, which takes a while
                on_part(part)
        writer.keep(start.parts)
        typed = labels if labels is not None else start.named.labels
        merge = _write_rows(folder, start, listings, writer, typed, progress)
    except BaseException:
        writer.undo()
        raise
    digest = writer.digest.hexdigest()
    manifest = Manifest(
        id=_id_of_the_same(folder, digest, writer.parts) or start.id,
        sources=absolute,
        images=writer.num_images,
        digest=digest,
        earlier=start.earlier(digest),
        named=start.named,
        labels=dict(sorted(writer.labels.items())),
        normal=writer.num_normal,
        abnormal=writer.num_abnormal,
        errors=writer.num_errors,
        damaged=sum(listing.num_damaged for listing in listings),
        merged=merge.num_repeated + sum(listing.num_repeated for listing in listings),
        skipped=sum(listing.num_skipped for listing in listings),
        notes=(*merge.notes, *(note for listing in listings for note in listing.notes)),
        parts=tuple(writer.parts),
    )
    write_record(storage.join(folder, NAME), manifest)
    _tidy(folder, set(replaced) - {name for name, _ in writer.parts})
    return open_manifest(out)


def _id_of_the_same(folder: str, digest: str, parts: Sequence[tuple[str, int]]) -> str:
    """The id of the replaced manifest if it lists the same images in the same parts, so that jobs
    started with it continue with the new one; else empty."""
    with suppress(ManifestError):
        replaced = open_manifest(folder)
        before, now = ([num for _, num in files] for files in (replaced.files, parts))
        if replaced.digest == digest and before == now:
            return replaced.id
    return ""


@dataclass
class _Start:
    """The state from which a listing starts."""

    named: Labelling
    before: Manifest | None = None
    """The finished manifest to refresh."""
    parts: list[Part] = field(default_factory=list)
    """Parts to keep."""
    is_announced: bool = False
    """True if the folder already has the record of the unfinished listing."""
    id: str = ""
    token: str = ""

    @staticmethod
    def of(out: str, folder: str, sources: Sequence[str], labelling: Labelling) -> _Start:
        """Read the state of the folder: a manifest to refresh, an interrupted listing, both or
        none. Raises Mismatch if it has other sources or labels."""
        before = open_manifest(out) if is_manifest(folder) else None
        begun = read_unfinished(folder)
        if begun is not None and begun.follows != ("" if before is None else before.digest):
            begun = None  # it has finished
        if begun is not None and begun.sources != tuple(sources):
            raise Mismatch(
                f"{out}: holds an unfinished manifest of {', '.join(begun.sources)}; name another "
                f"folder, or remove it"
            )
        existing = before or begun
        if existing is None:
            return _Start(labelling)
        parts = list(before.parts) if before is not None else []
        if begun is not None:
            parts += begun.parts(folder, len(parts))
        return _Start(
            named=_same_labelling(out, existing.named, labelling),
            before=before,
            parts=parts,
            is_announced=begun is not None,
            id=existing.id,
            token=begun.token if begun is not None else "",
        )

    def earlier(self, digest: str) -> tuple[str, ...]:
        """The earlier digests of the manifest, now that its digest is this one."""
        if self.before is None:
            return ()
        previous = (self.before.digest,) if self.before.digest != digest else ()
        return (*self.before.earlier, *previous)


def _same_labelling(out: str, before: Labelling, now: Labelling) -> Labelling:
    """The labelling of the manifest. Raises Mismatch if the new one differs: all images of a
    manifest are labelled in the same way."""
    for key, value in now:
        previous = getattr(before, key)
        if value and value != previous:
            shown, given = (
                list(each) if isinstance(each, tuple) else each for each in (previous, value)
            )
            raise Mismatch(
                f"{out}: was made with {key} {shown or 'not given'}, now it is {given}; leave it "
                f"out to refresh, or index into another folder"
            )
    return before


def _sorted_labels(labels: Collection[str]) -> tuple[str, ...]:
    return tuple(sorted(filter(None, map(label_of, labels))))


def _write_rows(
    folder: str,
    start: _Start,
    listings: Sequence[Listing],
    writer: PartWriter,
    labels: str | None,
    progress: Callable[[int], None] | None,
) -> Merge:
    """List all sources and write the new rows; returns the merge, for its counts."""
    naming = Naming(start.named.normal, start.named.abnormal)
    rows = _judged(_numbered(listings, progress), naming)
    sources = [storage.absolute(listing.source) for listing in listings]
    with storage.scratch_folder(folder, _SCRATCH) as scratch, open_merge(scratch, folder) as merge:
        lists = any(listing.is_list for listing in listings)
        if labels is None and not start.parts and not lists and are_apart(sources):
            writer.write(batches_of(merge.settled(rows, naming.by_user)))
        else:
            merge.add(rows)
        if labels is not None:
            merge.add_labels(labels, read_labels(labels))
        merge.judge(naming)
        if start.parts:
            merge.leave_out(start.parts)
        writer.write(merge.batches([listing.source for listing in listings]))
    naming.check(writer.labels)
    return merge


def _claim(out: str, folder: str, sources: Sequence[str]) -> list[str]:
    """Check that the folder may be used. Returns the parts of an earlier run, which are to be
    replaced."""
    if storage.size_of(folder) is not None:
        raise ManifestError(f"{out}: is a file; name a folder for the manifest")
    names = storage.list_names(folder)
    if is_manifest(folder):
        with suppress(ManifestError):  # a damaged one is replaced
            existing = open_manifest(folder).sources
            if existing != tuple(sources):
                raise Mismatch(
                    f"{out}: holds a manifest of {', '.join(existing)}; name another folder, or "
                    f"remove it"
                )
    elif foreign := [name for name in names if not _is_ours(name)]:
        raise ManifestError(
            f"{out}: holds other files ({foreign[0]}) and no manifest; name a new folder"
        )
    for name in filter(_LEFT_BEHIND.fullmatch, names):
        place = storage.join(folder, name)
        if name.startswith(_SCRATCH):
            storage.remove_folder(place)
        else:
            storage.remove(place)
    return [name for name in names if PART.fullmatch(name)]


def _is_ours(name: str) -> bool:
    """True for a file of ganad's in a folder without a manifest.json."""
    return bool(PART.fullmatch(name) or _LEFT_BEHIND.fullmatch(name) or name == UNFINISHED)


def _tidy(folder: str, parts: Collection[str]) -> None:
    """Remove parts and files that the finished manifest no longer needs."""
    for name in sorted(parts):
        storage.remove(storage.join(folder, name))
    if UNFINISHED in storage.list_names(folder):
        storage.remove(storage.join(folder, UNFINISHED))


def _numbered(
    listings: Sequence[Listing], progress: Callable[[int], None] | None
) -> Iterator[tuple[int, Row]]:
    """Yield rows with the number of their source."""
    num = 0
    for source, listing in enumerate(listings):
        for row in listing.rows():
            num += 1
            if progress and num % ROWS_PER_GROUP == 0:
                progress(num)
            yield source, row
    if progress:
        progress(num)
    check_any(listings)


def _judged(rows: Iterable[tuple[int, Row]], naming: Naming) -> Iterator[tuple[int, Row]]:
    for source, row in rows:
        yield source, {**row, "abnormal": naming.judge(row["label"], row["abnormal"])}
