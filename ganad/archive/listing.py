"""Lists the images of a source: a folder, glob, s3:// prefix, image, shard or list of URIs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from ganad.archive.csvs import is_csv
from ganad.archive.layout import Layout, Surroundings, describe_member
from ganad.archive.masks import IMAGE_SUFFIXES, is_image
from ganad.archive.parquets import IMAGE_COLUMNS, LARGE_GROUP, is_parquet, open_images
from ganad.archive.rows import Row, image_id, loose_row
from ganad.archive.tars import COMPRESSED, Listed, compressed, is_tar, listed_ahead
from ganad.archive.uri_lists import UriList, is_list
from ganad.archive.verdicts import is_verdicts
from ganad.archive.walk import (
    GROUND_TRUTH,
    File,
    Pattern,
    expand_braces,
    is_glob,
    is_hidden,
    split_glob,
    walk,
)
from ganad.errors import ArchiveError
from ganad.storage import files as storage
from ganad.storage.retry import why

_SUFFIXES_SHOWN = ", ".join(IMAGE_SUFFIXES)
_NOT_UTF8 = "the file name is not UTF-8; rename the file"
_IRREGULAR = "is a pipe or a device, not a file"


def list_images(sources: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of all sources; an image that two sources name occurs twice.

    For members of a shard, `abnormal` is null and the label is the first folder; both depend on all
    members and are decided in ganad.archive.manifest. Raises ArchiveError for a source that cannot
    be listed or holds no image.
    """
    surroundings = Surroundings()
    listings = [Listing(source, surroundings) for source in sources]
    for listing in listings:
        for row in listing.rows():
            folder = row.pop("folder", None)
            yield {**row, "label": folder.partition("/")[0]} if folder else row
    check_any(listings)


def check_any(listings: Sequence[Listing]) -> None:
    """Raise ArchiveError if the finished listings have damaged shards and no readable image."""
    fault = next((listing.fault for listing in listings if listing.fault), None)
    if fault is not None and not any(listing.num_images for listing in listings):
        raise fault


def are_apart(sources: Sequence[str]) -> bool:
    """True if the names of these absolute sources rule out that an image is in two of them."""
    begins = sorted(_beginning(uri) for source in sources for uri in expand_braces(source))
    return not any(second.startswith(first) for first, second in pairwise(begins))


def _beginning(uri: str) -> str:
    """The common prefix of all image names of a source."""
    if not is_glob(uri):
        return f"{uri.rstrip('/')}/"
    folder, pattern = split_glob(uri)
    return f"{folder.rstrip('/')}/{pattern.literal_start}"


class _Found(NamedTuple):
    """A file below a folder. is_named: matched by a glob or named in full; only then is a shard
    opened."""

    folder: str
    file: File
    is_named: bool

    @property
    def uri(self) -> str:
        # Concatenated, not joined: a key on S3 may contain empty names.
        return f"{self.folder.rstrip('/')}/{self.file.path}"

    @property
    def name(self) -> str:
        return self.file.path.rpartition("/")[2]

    @property
    def error(self) -> str | None:
        """The reason why it cannot be opened, if the listing already knows one."""
        if storage.printable(self.uri) != self.uri:
            return _NOT_UTF8
        return None if self.file.is_regular else _IRREGULAR


class Listing:
    """The images of one source, with counts of what is left out."""

    def __init__(self, source: str, surroundings: Surroundings) -> None:
        self.source = source
        self.num_images = 0
        """Number of rows without an error."""
        self.num_skipped = 0
        """Number of files that are not images, without hidden files and masks."""
        self.num_repeated = 0
        """Number of shard members that a later one of the same name replaces."""
        self.num_damaged = 0
        """Number of shards that could not be listed completely."""
        self.notes: list[str] = []
        self._uri = storage.absolute(source)
        self._surroundings = surroundings
        self._layouts: dict[str, Layout] = {}
        self._unopened = ""
        """A shard that exists but was not named."""
        self._num_masks = 0
        """Number of masks inside shards."""
        self.fault: ArchiveError | None = None
        """The error of the first damaged shard."""

    def rows(self) -> Iterator[Row]:
        """Yield the row of each image. Rows of shard members have a key `folder`, from which
        ganad.archive.merge chooses the label. Raises ArchiveError, at the end if there is no
        image."""
        num = 0
        try:
            for row in self._rows():
                self.num_images += row["error"] is None
                num += 1
                yield row
        except ArchiveError as error:
            raise self._beginning_with_source(str(error)) from error
        if num == 0:
            raise ArchiveError(f"{self.source}: {self._why_none()}")
        self._note_masks()

    def _beginning_with_source(self, text: str) -> ArchiveError:
        return ArchiveError(text if text.startswith(self.source) else f"{self.source}: {text}")

    @cached_property
    def is_list(self) -> bool:
        """True for a file of URIs, which may repeat images and name those of other sources."""
        if is_verdicts(self._uri):
            return True
        if not (is_csv(self._uri) or is_parquet(self._uri)) or not self._is_file(self._uri):
            return False
        try:
            return is_list(self._uri)
        except ArchiveError:  # a damaged shard
            return False

    def _rows(self) -> Iterator[Row]:
        if self.is_list:
            yield from UriList(self.source).rows(self._surroundings)
            return

        def shard_of(found: _Found) -> str | None:
            is_shard = found.is_named and is_tar(found.name) and found.error is None
            return found.uri if is_shard else None

        with closing(listed_ahead((each, shard_of(each)) for each in self._files())) as files:
            for found, shard in files:
                if shard is not None:
                    yield from self._members(found, shard)
                elif is_image(found.name):
                    yield self._loose(found)
                elif not (found.is_named and self._is_shard(found.name)):
                    if self._is_shard(found.name):
                        self._unopened = self._unopened or found.name
                    self.num_skipped += 1
                elif found.error is not None:
                    yield self._damaged(found, ArchiveError(f"{found.uri}: {found.error}"))
                elif is_parquet(found.name):
                    yield from self._cells(found)
                else:
                    yield self._damaged(found, compressed(found.uri))

    @staticmethod
    def _is_shard(name: str) -> bool:
        return is_tar(name) or is_parquet(name) or name.lower().endswith(COMPRESSED)

    # ---- Files -----------------------------------------------------------------------------------

    def _files(self) -> Iterator[_Found]:
        """Yield every file of the source."""
        whole = self._uri
        uris = [whole] if "{" in whole and storage.exists(whole) else expand_braces(whole)
        for uri in uris:
            if self._is_file(uri):
                folder, _, name = uri.rpartition("/")
                self._check_kind(name)
                yield _Found(folder or "/", File(name, storage.size_of(uri)), True)
            elif is_glob(uri) and not storage.is_folder(uri):
                folder, pattern = split_glob(uri)
                yield from self._below(folder, pattern)
            else:
                if len(uris) > 1 and not storage.is_folder(uri):
                    raise self._missing(uri)
                yield from self._below(uri, None)

    def _is_file(self, uri: str) -> bool:
        # For a missing object, such as a prefix, S3 denies access to users without list rights: ask
        # only for names that may be files.
        name = uri.rpartition("/")[2]
        may_be = not storage.is_remote(uri) or is_image(name) or self._is_shard(name)
        may_be = may_be or is_csv(name)
        return may_be and not self.source.endswith("/") and storage.size_of(uri) is not None

    def _check_kind(self, name: str) -> None:
        if not (is_image(name) or self._is_shard(name)):
            raise ArchiveError(
                f"{self.source}: is neither an image ({_SUFFIXES_SHOWN}) nor a .tar shard nor "
                f"a .parquet file nor a .csv of URIs; give a folder, a glob, an s3:// prefix or "
                f"one of these"
            )

    def _below(self, folder: str, pattern: Pattern | None) -> Iterator[_Found]:
        if not storage.is_remote(folder) and not storage.is_folder(folder):
            raise self._missing(folder)
        for file in walk(folder, pattern or Pattern()):
            yield _Found(folder, file, pattern is not None)

    def _missing(self, uri: str) -> ArchiveError:
        shown = f"{uri}: " if "{" in self._uri else ""
        return ArchiveError(
            f"{self.source}: {shown}there is no such file or folder; check the path"
        )

    def _loose(self, found: _Found) -> Row:
        shown, name = storage.printable(found.uri), storage.printable(found.file.path)
        if found.error is not None:
            row = loose_row(shown, name, error=found.error)
            return {**row, "image_id": image_id(found.uri)}
        if found.folder not in self._layouts:
            self._layouts[found.folder] = Layout(found.folder, self._surroundings)
        layout = self._layouts[found.folder]
        facts, mask = layout.describe(found.file.path)
        return loose_row(
            shown,
            name,
            size=found.file.size,
            label=facts.label,
            abnormal=facts.abnormal,
            mask=mask,
            split=facts.split,
        )

    # ---- Shards ----------------------------------------------------------------------------------

    def _members(self, found: _Found, shard: Listed) -> Iterator[Row]:
        self.num_repeated += shard.num_repeated
        for member in shard.members:
            names = [name for name in member.name.split("/") if name not in ("", ".")]
            if not names or any(map(is_hidden, names)):
                continue
            if not is_image(names[-1]):
                self.num_skipped += GROUND_TRUTH not in names[:-1]
                continue
            if GROUND_TRUTH in names[:-1]:
                self._num_masks += 1
                continue
            facts = describe_member(names)
            is_there = member.link is None and member.error is None
            yield {
                "image_id": image_id(found.uri, member.name),
                "uri": found.uri,
                "member": member.name,
                "offset": member.offset if is_there else None,
                "size": member.size if is_there else None,
                "name": f"{found.name}#{'/'.join(names)}",
                "label": facts.label,
                "abnormal": None,
                "mask": None,
                "split": facts.split,
                "column": None,
                "error": None if is_there else member.error,
                "folder": facts.folder,
            }
        if shard.error is not None:
            yield self._damaged(found, shard.error)

    def _cells(self, found: _Found) -> Iterator[Row]:
        """Yield the rows of a Parquet file; none if it holds no images."""
        try:
            file = open_images(found.uri)
            if file is None:
                if found.uri == self._uri:
                    raise ArchiveError(
                        f"{self.source}: has no column of bytes; store the images in a column "
                        f"{IMAGE_COLUMNS[0]}, as bytes or as a struct of bytes and path, or name "
                        f"them in a column uri"
                    )
                self.num_skipped += 1
                return
            if file.largest_group > LARGE_GROUP:
                self.notes.append(
                    f"{found.uri}: has row groups of {file.largest_group / 2**30:.1f} GiB, which a "
                    f"worker may have to hold whole; write it with row_group_size=1000"
                )
            if file.note is not None:
                self.notes.append(file.note)
            for cell in file.cells():
                yield {
                    "image_id": image_id(found.uri, str(cell.row)),
                    "uri": found.uri,
                    "member": str(cell.row),
                    "offset": cell.row,
                    "size": None,
                    "name": f"{found.file.path}#{cell.name}",
                    "label": cell.label,
                    "abnormal": None,
                    "mask": None,
                    "split": None,
                    "column": file.column,
                    "error": None,
                }
        except ArchiveError as error:
            reason = why(error)
            if reason is not None and (reason.transient or reason.everywhere):
                raise
            yield self._damaged(found, error)

    def _damaged(self, found: _Found, error: ArchiveError) -> Row:
        """The row of a shard that could not be listed completely."""
        shown = storage.printable(found.uri)
        text = str(error).removeprefix(f"{shown}: ").removeprefix(f"{found.uri}: ")
        self.fault = self.fault or self._beginning_with_source(f"{shown}: {text}")
        self.num_damaged += 1
        if self.num_damaged == 1:
            self.notes.append(f"{shown}: could not be listed completely: {text}")
        row = loose_row(shown, storage.printable(found.file.path), error=text)
        return {**row, "image_id": image_id(found.uri)}

    # ---- Notes ---------------------------------------------------------------------------------

    def _note_masks(self) -> None:
        """Report masks without an image, and abnormal images without a mask."""
        stray: list[str] = []
        bare: list[str] = []
        for layout in self._layouts.values():
            masks, images = layout.left_over()
            stray += masks
            bare += images
        if stray:
            self.notes.append(
                f"{self.source}: {len(stray):,} masks belong to no image, the first {stray[0]}; "
                f"call the mask of x.png x_mask.png or x.png, or put it into a folder x"
            )
        if bare:
            self.notes.append(
                f"{self.source}: {len(bare):,} abnormal images have no mask in {GROUND_TRUTH}, the "
                f"first {bare[0]}"
            )
        if self._num_masks:
            self.notes.append(
                f"{self.source}: {self._num_masks:,} masks inside shards are not used; put them "
                f"beside the shards, and name them in the column mask of a CSV (--labels)"
            )

    def _why_none(self) -> str:
        if self.is_list:
            return "names no images; give a list that has some lines"
        if self.num_skipped and storage.exists(storage.join(self._uri, "manifest.json")):
            return (
                "holds a manifest, not images; give it alone, as the source of train or score, or "
                "make it again with ganad index if it is damaged"
            )
        if self._unopened:
            ending = "." + self._unopened.rpartition(".")[2].lower()
            shards = f"{self.source.rstrip('/')}/*{ending}"
            kind = ".parquet files" if ending == ".parquet" else f"{ending} shards"
            return f"holds no loose images but {kind}; name them with '{shards}'"
        if self.num_skipped:
            num = self.num_skipped
            return f"none of its {num} files is an image; give some that end in {_SUFFIXES_SHOWN}"
        if is_tar(self._uri) and self._is_file(self._uri):
            return "the shard holds no images; give one that does"
        if is_glob(self._uri):
            return "matches no images; check the pattern"
        if storage.is_remote(self._uri):
            return "there are no objects below this prefix; check the path"
        return "the folder holds no images; give one that does"
