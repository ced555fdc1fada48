"""SOURCE as typed (folder, glob, s3:// prefix, image, tar, Parquet file) -> rows, one by one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import pairwise

from ganad.archive.layout import Layout, Surroundings, describe_member
from ganad.archive.parquets import IMAGE_COLUMNS, LARGE_GROUP, is_parquet, open_images
from ganad.archive.patterns import Pattern, is_glob, split_glob
from ganad.archive.rows import Row, image_id
from ganad.archive.tars import COMPRESSED, Listed, compressed, listed, listed_ahead
from ganad.archive.walk import GROUND_TRUTH, File, is_hidden, walk
from ganad.errors import ArchiveError
from ganad.storage import files as storage

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif")
_SUFFIXES_SHOWN = ", ".join(SUFFIXES)


def list_images(sources: Sequence[str]) -> Iterator[Row]:
    """The rows of all sources as they are found; an image that two of them name comes twice.

    What is abnormal in a tar or a Parquet file stays null: only ganad.archive.manifest, which sees
    all of its labels, can tell. Raises ArchiveError for a source that cannot be listed or holds no
    image.
    """
    surroundings = Surroundings()
    for source in sources:
        yield from Listing(source, surroundings).rows()


def is_image(name: str) -> bool:
    """Whether a name ends as images do, in any case."""
    return name.lower().endswith(SUFFIXES)


def is_tar(name: str) -> bool:
    """Whether a name ends in .tar, in any case."""
    return name.lower().endswith(".tar")


def are_apart(sources: Sequence[str]) -> bool:
    """Whether no image can be in two of these absolute sources, as far as their names tell."""
    begins = sorted(map(_beginning, sources))
    return not any(second.startswith(first) for first, second in pairwise(begins))


def _beginning(uri: str) -> str:
    """What the names of all images of a source begin with."""
    if not is_glob(uri):
        return f"{uri.rstrip('/')}/"
    folder, pattern = split_glob(uri)
    return f"{folder.rstrip('/')}/{pattern.literal_start}"


class Listing:
    """The images of one source. Counts, while it runs, what it leaves out."""

    def __init__(self, source: str, surroundings: Surroundings) -> None:
        self.source = source
        self.num_images = 0
        self.num_skipped = 0
        """Files that are no images; hidden ones and masks are not counted."""
        self.num_repeated = 0
        """Members of a shard that a later one of the same name replaces."""
        self.notes: list[str] = []
        self._surroundings = surroundings
        self._uri = storage.absolute(source)
        self._shard_seen = ""

    def rows(self) -> Iterator[Row]:
        """Yields each image's row. Raises ArchiveError, at the end if there was no image."""
        try:
            for row in self._rows():
                self.num_images += 1
                yield row
        except ArchiveError as error:
            if str(error).startswith(self.source):
                raise
            raise ArchiveError(f"{self.source}: {error}") from error
        if self.num_images == 0:
            raise ArchiveError(f"{self.source}: {self._why_none()}")

    def _rows(self) -> Iterator[Row]:
        if self._is_file():
            yield from self._single()
        elif is_glob(self._uri) and not self._is_folder():
            folder, pattern = split_glob(self._uri)
            yield from self._below(folder, pattern)
        else:
            yield from self._below(self._uri, None)

    def _is_file(self) -> bool:
        if not storage.is_remote(self._uri):
            return os.path.isfile(self._uri)
        # A prefix may not be asked for: not everyone may ask for objects that are not there.
        named = (
            is_image(self._uri)
            or is_tar(self._uri)
            or is_parquet(self._uri)
            or self._uri.lower().endswith(COMPRESSED)
        )
        return named and not self.source.endswith("/") and storage.size_of(self._uri) is not None

    def _is_folder(self) -> bool:
        """Whether a name with a wildcard in it is, after all, a folder's own."""
        return storage.is_folder(self._uri)

    def _single(self) -> Iterator[Row]:
        folder, _, name = self._uri.rpartition("/")
        if is_image(name):
            yield self._row(Layout(folder, self._surroundings), name, storage.size_of(self._uri))
        elif is_tar(name):
            yield from self._shard(self._uri, listed(self._uri))
        elif is_parquet(name):
            yield from self._cells(self._uri, name)
            if self.num_skipped:
                raise ArchiveError(
                    f"{self.source}: has no column of bytes; store the images in a column "
                    f"{IMAGE_COLUMNS[0]}, as bytes or as a struct of bytes and path"
                )
        elif name.lower().endswith(COMPRESSED):
            raise compressed(self._uri)
        else:
            raise ArchiveError(
                f"{self.source}: is neither an image ({_SUFFIXES_SHOWN}) nor a .tar shard nor "
                f"a .parquet file; give a folder, a glob, an s3:// prefix or one of these"
            )

    def _below(self, folder: str, pattern: Pattern | None) -> Iterator[Row]:
        """The files below a folder; tar shards and Parquet files among them only where a glob names
        them."""
        if not storage.is_remote(folder) and not os.path.isdir(folder):
            raise ArchiveError(f"{self.source}: there is no such file or folder; check the path")
        layout = Layout(folder, self._surroundings)

        def place(file: File) -> str:
            return storage.join(folder, file.path)

        def is_shard(file: File) -> bool:
            return is_tar(file.path) and file.is_regular and pattern is not None

        files = walk(folder, pattern or Pattern())
        each = ((file, place(file) if is_shard(file) else None) for file in files)
        with closing(listed_ahead(each)) as some:
            for file, shard in some:
                if is_image(file.path) and file.is_regular:
                    yield self._row(layout, file.path, file.size)
                elif shard is not None:
                    yield from self._shard(place(file), shard)
                elif is_parquet(file.path) and file.is_regular and pattern is not None:
                    yield from self._cells(place(file), file.path)
                else:
                    if is_tar(file.path) or is_parquet(file.path):
                        self._shard_seen = self._shard_seen or file.path
                    self.num_skipped += 1

    def _row(self, layout: Layout, path: str, size: int | None) -> Row:
        uri = f"{layout.root.rstrip('/')}/{path}"  # as it is: a key may have empty names in it
        try:
            uri.encode()
        except UnicodeEncodeError as error:
            shown = os.fsencode(uri)
            raise ArchiveError(f"{shown!r}: this name is not UTF-8; rename the file") from error
        facts, mask = layout.describe(path)
        return {
            "image_id": image_id(uri),
            "uri": uri,
            "member": None,
            "offset": None,
            "size": size,
            "name": path,
            "label": facts.label,
            "abnormal": facts.abnormal,
            "mask": mask,
            "split": facts.split,
            "column": None,
        }

    def _cells(self, uri: str, path: str) -> Iterator[Row]:
        """The rows of a Parquet file; of one without images, none."""
        file = open_images(uri)
        if file is None:
            self.num_skipped += 1
            return
        if file.largest_group > LARGE_GROUP:
            self.notes.append(
                f"{uri}: has row groups of {file.largest_group / 2**30:.1f} GiB, of which a "
                f"worker may hold all; write it with row_group_size=1000"
            )
        for cell in file.cells():
            yield {
                "image_id": image_id(uri, str(cell.row)),
                "uri": uri,
                "member": str(cell.row),
                "offset": cell.row,
                "size": None,
                "name": f"{path}#{cell.name}",
                "label": cell.label,
                "abnormal": None,
                "mask": None,
                "split": None,
                "column": file.column,
            }

    def _shard(self, uri: str, found: Listed) -> Iterator[Row]:
        shard = uri.rpartition("/")[2]
        self.num_repeated += found.num_repeated
        for member in found.members:
            names = [name for name in member.name.split("/") if name not in ("", ".")]
            if not names or any(map(is_hidden, names)) or GROUND_TRUTH in names[:-1]:
                continue
            if not member.is_regular or not is_image(names[-1]):
                self.num_skipped += 1
                continue
            facts = describe_member(names)
            yield {
                "image_id": image_id(uri, member.name),
                "uri": uri,
                "member": member.name,
                "offset": member.offset,
                "size": member.size,
                "name": f"{shard}#{'/'.join(names)}",
                "label": facts.label,
                "abnormal": facts.abnormal,
                "mask": None,
                "split": facts.split,
                "column": None,
            }

    def _why_none(self) -> str:
        if self.num_skipped and storage.exists(storage.join(self._uri, "manifest.json")):
            return "is a manifest, not images; give it alone, as the source of train or score"
        if self._shard_seen:
            ending = ".tar" if is_tar(self._shard_seen) else ".parquet"
            shards = f"{self.source.rstrip('/')}/*{ending}"
            kind = ".tar shards" if ending == ".tar" else ".parquet files"
            return f"holds no loose images but {kind}; name them with '{shards}'"
        if self.num_skipped:
            num = self.num_skipped
            return f"none of its {num} files is an image; give some that end in {_SUFFIXES_SHOWN}"
        if is_tar(self._uri) and self._is_file():
            return "the shard holds no images; give one that does"
        if is_glob(self._uri):
            return "matches no images; check the pattern"
        if storage.is_remote(self._uri):
            return "there are no objects below this prefix; check the path"
        return "the folder holds no images; give one that does"
