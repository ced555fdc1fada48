"""Images, paths and a model for the benchmarks of scoring, made once and used again."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from ganad.detectors import configure, create
from ganad.errors import ArchiveError
from ganad.images.decode import MAX_PIXELS
from ganad.images.header import open_image
from ganad.model import Model
from ganad.storage import files as storage
from pipelines.console.progress import Meter

SIDE = 256
PER_FOLDER = 1000
QUALITY = 90


def untrained(folder: Path) -> str:
    """Save a GANomaly of 64 pixels with its first weights: its speed is that of any."""
    config = configure("ganomaly", {"image_size": 64, "channels": 1})
    return Model(create("ganomaly", config), None).save(str(folder))


def make_jpegs(folder: Path, tiles: str, num: int) -> Path:
    """num JPEGs of 256 x 256, grey: crops of the tiles at random places, turned and mirrored.

    Raises ArchiveError where there are no tiles.
    """

    def fill(fresh: Path) -> None:
        sources = sorted(Path(tiles).rglob("*.jpg"))
        if not sources:
            raise ArchiveError(f"{tiles}: holds no .jpg to make images from; give --data")
        rng = np.random.default_rng(0)
        with Meter("making JPEGs", num, "images") as meter:
            for number in range(num):
                picture = _crop(sources[number % len(sources)], rng)
                place = _place(fresh, number, ".jpg")
                picture.save(place, "JPEG", quality=QUALITY)
                meter.update(number + 1)

    return _once(folder, fill)


def _crop(source: Path, rng: np.random.Generator) -> Image.Image:
    tile = open_image(source.read_bytes(), MAX_PIXELS)
    side = min(tile.size)
    left, top = (int(rng.integers(0, length - side + 1)) for length in tile.size)
    crop = tile.convert("L").crop((left, top, left + side, top + side))
    turned = crop.transpose(Image.Transpose(int(rng.integers(0, 7))))
    return turned.resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def make_tar(path: Path, folder: Path) -> Path:
    """The files of a folder as a shard."""
    if not path.exists():
        fresh = path.with_suffix(".part")
        with tarfile.open(fresh, "w") as tar:
            for file in sorted(folder.rglob("*.jpg")):
                tar.add(file, file.relative_to(folder).as_posix())
        fresh.rename(path)
    return path


def put_on_s3(prefix: str, folder: Path, tar: Path) -> tuple[str, str]:
    """Copy a folder and its shard below an s3:// prefix, unless they are there."""
    prefix = storage.absolute(prefix)
    loose, shard = storage.join(prefix, folder.name), storage.join(prefix, tar.name)
    if not storage.exists(shard):  # which goes last
        filesystem = storage.filesystem(prefix)
        filesystem.put(f"{folder}/", f"{loose}/", recursive=True)
        filesystem.put(str(tar), shard)
    return loose, shard


def make_paths(folder: Path, num: int) -> Path:
    """num empty files that are called images: what is asked of them is their number."""

    def fill(fresh: Path) -> None:
        with Meter("making paths", num, "files") as meter:
            for number in range(num):
                os.close(os.open(_place(fresh, number, ".png"), os.O_CREAT | os.O_WRONLY))
                if number % PER_FOLDER == 0:
                    meter.update(number)

    return _once(folder, fill)


def make_large_jpeg(tiles: str, width: int, height: int) -> bytes:
    """One photograph as large as a camera's, enlarged from a tile."""
    source = next(iter(sorted(Path(tiles).rglob("*.jpg"))), None)
    if source is None:
        raise ArchiveError(f"{tiles}: holds no .jpg to make images from; give --data")
    sink = io.BytesIO()
    tile = open_image(source.read_bytes(), MAX_PIXELS)
    large = tile.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    large.save(sink, "JPEG", quality=QUALITY)
    return sink.getvalue()


def _place(folder: Path, number: int, ending: str) -> Path:
    below = folder / f"{number // PER_FOLDER:05d}"
    if number % PER_FOLDER == 0:
        below.mkdir(parents=True)
    return below / f"{number:08d}{ending}"


def _once(folder: Path, fill: Callable[[Path], None]) -> Path:
    """A folder that is there is whole."""
    if not folder.exists():
        fresh = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        fill(fresh)
        fresh.rename(folder)
    return folder
