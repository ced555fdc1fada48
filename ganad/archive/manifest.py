"""A manifest: the list of an archive's images as a folder of Parquet parts and a manifest.json.

manifest.json is written last and names its parts: a folder without it is no manifest, and one that
is written anew stays the old one until the new one is whole. One that is refreshed keeps its parts
and gets further ones, so that what was done part by part goes on with the new ones alone. Parts
that are in use before the listing has ended are kept in the same way; see ganad.archive.unfinished.
"""

from __future__ import annotations

import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from ganad.archive.labels import Naming, read_labels
from ganad.archive.layout import Surroundings
from ganad.archive.listing import Listing, are_apart
from ganad.archive.merge import Merge
from ganad.archive.parts import ROWS_PER_GROUP, Part, PartWriter, batches_of, read_rows, read_table
from ganad.archive.rows import SCHEMA, Row
from ganad.archive.unfinished import NAME as UNFINISHED
from ganad.archive.unfinished import Unfinished, read_unfinished
from ganad.errors import ArchiveError, ConfigError, ManifestError, Mismatch
from ganad.storage import files as storage
from ganad.storage.reasons import translated

__all__ = [
    "SCHEMA",
    "Manifest",
    "Part",
    "is_manifest",
    "open_manifest",
    "read_rows",
    "write_manifest",
]

FORMAT = "ganad manifest 1"
_WORKPLACE = ".ganad-merge-"
_PART = re.compile(r"part-\d{5}(-[0-9a-f]{8})?\.parquet")
_LITTER = re.compile(
    r"\.ganad-merge-.+|\.(part-.+\.parquet|manifest(\.unfinished)?\.json)\.[0-9a-f]{8}"
)


@dataclass(frozen=True)
class Manifest:
    """A finished manifest; its rows stay on disk until they are asked for."""

    uri: str
    sources: tuple[str, ...]
    """Absolute."""
    parts: tuple[Part, ...]
    num_images: int
    labels: dict[str, int]
    """Images per label; those without one are not counted."""
    num_normal: int
    num_abnormal: int
    digest: str
    """16 hex characters over id, size, label, abnormal and split of every image, in order."""
    merged: int
    """Rows that named an image a second time."""
    num_skipped: int
    """Files that are no images."""
    notes: tuple[str, ...]
    """What the user should know, a sentence each."""
    earlier: tuple[str, ...] = ()
    """Digests that it had before it was refreshed: the images of then are its first parts."""
    named: Mapping[str, Any] = field(default_factory=dict)
    """What decided on labels when it was made: labels (a CSV), normal and abnormal."""

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows, or some columns of them, in memory. Raises ArchiveError."""
        return pa.concat_tables(read_table(part.uri, columns) for part in self.parts)

    def rows(self, part: Part, start: int, num: int) -> list[Row]:
        """Rows start..start+num of a part (fewer at its end). Raises ArchiveError."""
        return read_rows(part.uri, start, num)


def is_manifest(uri: str) -> bool:
    """Whether uri is a finished manifest."""
    place = storage.join(storage.absolute(uri), "manifest.json")
    if storage.size_of(place) is None:
        return False
    try:
        return _is_ours(storage.read_json(place))
    except ArchiveError:
        return False


def _is_ours(info: Any) -> bool:
    return isinstance(info, dict) and info.get("format") == FORMAT


def open_manifest(uri: str) -> Manifest:
    """Raises ManifestError if there is none or it is unfinished."""
    folder = storage.absolute(uri)
    place = storage.join(folder, "manifest.json")
    if storage.size_of(place) is None:
        if any(_is_left_over(name) for name in storage.list_names(folder)):
            raise ManifestError(f"{uri}: indexing did not finish; run the same ganad index again")
        raise ManifestError(f"{uri}: is no manifest; make one with ganad index")
    info = storage.read_json(place)
    if not _is_ours(info):
        raise ManifestError(f"{uri}: its manifest.json is not ganad's; make one with ganad index")
    return Manifest(
        uri=folder,
        sources=tuple(info["sources"]),
        parts=tuple(Part(storage.join(folder, name), num) for name, num in info["parts"]),
        num_images=info["images"],
        labels=info["labels"],
        num_normal=info["normal"],
        num_abnormal=info["abnormal"],
        digest=info["digest"],
        merged=info["merged"],
        num_skipped=info["skipped"],
        notes=tuple(info["notes"]),
        earlier=tuple(info.get("earlier", ())),
        named=info.get("named", {}),
    )


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
) -> Manifest:
    """List the images of all sources and write their manifest to the folder out.

    labels: a CSV (columns path, label and perhaps abnormal, mask, split) that replaces the labels
    of the folders. normal, abnormal: labels to be taken so. progress is called with the number of
    images found so far. A manifest of the same sources is replaced; with refresh it keeps its rows,
    and images that it does not list yet come after them, labelled as it was made.

    on_part is called with each part, the kept ones first, as soon as it lies in out for good, while
    the listing goes on; at its end come images of which one row alone does not tell everything: of
    sources that may overlap, with labels by a CSV, members of shards that have labels. If the
    listing fails or is killed after that, refresh keeps these parts too and goes on behind them.

    Raises ArchiveError for sources, ConfigError for labels, and Mismatch or ManifestError if out
    holds something else.
    """
    if not sources:
        raise ConfigError("no source was given: name a folder, a glob, an s3:// prefix or a .tar")
    folder = storage.absolute(out)
    absolute = [storage.absolute(source) for source in sources]
    old = _claim(out, folder, absolute)
    named: dict[str, Any] = {
        "labels": None if labels is None else storage.absolute(labels),
        "normal": sorted(normal),
        "abnormal": sorted(abnormal),
    }
    before = open_manifest(out) if refresh and is_manifest(folder) else None
    begun = _begun(out, folder, absolute, before) if refresh else None
    known = list(before.parts) if before is not None else []
    theirs = before or begun
    if theirs is not None:
        named = _named_before(out, theirs.named, named)
        labels = named["labels"] if labels is None else labels
    if begun is not None:
        known += begun.parts(folder, len(known))
    naming = Naming(named["normal"], named["abnormal"])
    surroundings = Surroundings()
    listings = [Listing(source, surroundings) for source in sources]
    rows = _judged(_numbered(listings, progress), naming)
    token = begun.token if begun is not None else secrets.token_hex(4) if old or on_part else ""
    announce = on_part
    if begun is None and on_part is not None:
        follows = before.digest if before is not None else ""
        announce = Unfinished(absolute, named, follows, token).before_first(folder, on_part)
    writer = PartWriter(folder, token, announce)
    merged, notes = 0, []
    try:
        if on_part is not None:
            for part in known:  # before they are counted, which takes a while
                on_part(part)
        old = sorted(set(old) - set(writer.keep(known)))
        with _workplace(folder) as place, Merge(place) as merge:
            if labels is None and not known and are_apart(absolute):
                writer.write(batches_of(merge.settled(rows, naming.by_user)))
            else:
                merge.add(rows)
            if labels is not None:
                merge.add_labels(labels, read_labels(labels))
            merge.judge(naming)
            if known:
                merge.leave_out(known)
            writer.write(merge.batches(sources))
            merged, notes = merge.num_repeated, merge.notes
        naming.check(writer.labels)
    except BaseException:
        writer.undo()
        raise
    digest = writer.digest.hexdigest()
    info = {
        "format": FORMAT,
        "sources": absolute,
        "images": writer.num_images,
        "digest": digest,
        "earlier": _earlier(before, digest),
        "named": named,
        "labels": dict(sorted(writer.labels.items())),
        "normal": writer.num_normal,
        "abnormal": writer.num_abnormal,
        "merged": merged + sum(listing.num_repeated for listing in listings),
        "skipped": sum(listing.num_skipped for listing in listings),
        "notes": [*notes, *(note for listing in listings for note in listing.notes)],
        "parts": writer.parts,
    }
    storage.write_json(storage.join(folder, "manifest.json"), info)
    for name in old:
        storage.remove(storage.join(folder, name))
    if UNFINISHED in storage.list_names(folder):
        storage.remove(storage.join(folder, UNFINISHED))
    return open_manifest(out)


def _begun(out: str, folder: str, sources: list[str], before: Manifest | None) -> Unfinished | None:
    """The listing that was cut off in the folder and is to go on."""
    begun = read_unfinished(folder)
    if begun is None or begun.follows != ("" if before is None else before.digest):
        return None  # none, or one that has finished since
    if list(begun.sources) != sources:
        raise Mismatch(
            f"{out}: holds an unfinished manifest of {', '.join(begun.sources)}; name another "
            f"folder, or remove it"
        )
    return begun


def _named_before(out: str, before: Mapping[str, Any], named: dict[str, Any]) -> dict[str, Any]:
    """What the manifest was labelled by; all of a table's images are labelled alike."""
    theirs = {**dict.fromkeys(named), "normal": [], "abnormal": [], **before}
    for key, value in named.items():
        if value and value != theirs[key]:
            raise Mismatch(
                f"{out}: was made with {key} {theirs[key] or 'not given'}, now it is {value}; "
                f"refresh it without, or index into another folder"
            )
    return theirs


def _earlier(before: Manifest | None, digest: str) -> list[str]:
    if before is None:
        return []
    return [*before.earlier, *([before.digest] if before.digest != digest else [])]


def _claim(out: str, folder: str, sources: list[str]) -> list[str]:
    """The parts that an earlier run left in the folder and that the new ones replace."""
    if not storage.is_remote(folder) and Path(folder).is_file():
        raise ManifestError(f"{out}: is a file; name a folder for the manifest")
    names = storage.list_names(folder)
    if is_manifest(folder):
        theirs = list(open_manifest(folder).sources)
        if theirs != sources:
            raise Mismatch(
                f"{out}: holds a manifest of {', '.join(theirs)}; name another folder, or remove it"
            )
    elif foreign := [name for name in names if not _is_left_over(name)]:
        raise ManifestError(
            f"{out}: holds other files ({foreign[0]}) and no manifest; name a new folder"
        )
    for name in filter(_LITTER.fullmatch, names):  # of a run that was killed
        place = storage.join(folder, name)
        if name.startswith(_WORKPLACE):
            shutil.rmtree(place)
        else:
            storage.remove(place)
    return [name for name in names if _PART.fullmatch(name)]


def _is_left_over(name: str) -> bool:
    """Whether a file is of ours, in a folder that has no manifest.json."""
    return bool(_PART.fullmatch(name) or _LITTER.fullmatch(name) or name == UNFINISHED)


@contextmanager
def _workplace(folder: str) -> Iterator[Path]:
    """A local folder for work in progress, beside the result where that is local: it may need
    more room than /tmp has."""
    parent = None
    if not storage.is_remote(folder):
        with translated(folder):
            Path(folder).mkdir(parents=True, exist_ok=True)
        parent = folder
    with tempfile.TemporaryDirectory(prefix=_WORKPLACE, dir=parent) as place:
        yield Path(place)


def _numbered(
    listings: Sequence[Listing], progress: Callable[[int], None] | None
) -> Iterator[tuple[int, Row]]:
    """Rows with the number of their source."""
    num = 0
    for source, listing in enumerate(listings):
        for row in listing.rows():
            num += 1
            if progress and num % ROWS_PER_GROUP == 0:
                progress(num)
            yield source, row
    if progress:
        progress(num)


def _judged(rows: Iterable[tuple[int, Row]], naming: Naming) -> Iterator[tuple[int, Row]]:
    for source, row in rows:
        yield source, {**row, "abnormal": naming.judge(row["label"], row["abnormal"])}
