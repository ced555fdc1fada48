"""Labelled image sets for benchmarks, brought into one layout: a train and a test source each.

digits:C          scikit-learn's handwritten digits, class C abnormal
mnist:C           MNIST from its IDX files, class C abnormal
mnist:C/N         the same with every N-th image alone
magnetic_tile     photographs of magnetic tiles, five kinds of defect
PATH              any folder in the MVTec layout
"""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from ganad.archive.manifest import write_manifest
from ganad.archive.rows import Row
from ganad.errors import ArchiveError, ConfigError

Labelled = Iterable[tuple[np.ndarray, str]]
SHOWN_LABELS = 8
TRAIN_SHARE = 0.8
"""Share of the normal digits that train; the others and all abnormal ones are the test."""


@dataclass(frozen=True)
class DataSet:
    """Where a set lies, and what of a detector's config it fixes."""

    name: str
    protocol: str
    """Which images train and which are tested: results of two protocols do not compare."""
    train: str
    test: str
    settings: tuple[str, ...] = ()
    """Size and channels that suit the images."""
    types: tuple[str, ...] = ()
    """Labels of the normal sub-types, where the training images carry them."""
    normal: tuple[str, ...] = ()
    """Labels of the normal test images, where their folders do not say it."""


def open_data_set(name: str, data: Path, work: Path, normal: Sequence[str] = ()) -> DataSet:
    """Find or make the data set; data is the folder of downloaded sets, work the place for files.
    normal: labels of the normal test images of a folder.

    Raises ConfigError for an unknown name and ArchiveError where its files are missing.
    """
    kind, _, digit = name.partition(":")
    if kind == "mnist":
        digit, _, share = digit.partition("/")
        if share and not (share.isdecimal() and int(share) > 0):
            raise ConfigError(f"{name} takes no share of the images: write mnist:{digit}/8")
        every = int(share or 1)
    if kind in ("digits", "mnist"):
        if not (digit.isdecimal() and 0 <= int(digit) <= 9):
            raise ConfigError(f"{name} names no abnormal digit: write {kind}:0 to {kind}:9")
        if kind == "mnist":
            return _mnist(name, int(digit), every, data, work)
        return _digits(name, int(digit), work)
    root = data / name if (data / name).is_dir() else Path(name)
    if not (root / "train").is_dir() or not (root / "test").is_dir():
        raise ArchiveError(
            f"{name} is no data set: use digits:C, mnist:C, magnetic_tile, or a folder that holds "
            f"train and test"
        )
    return DataSet(
        root.name,
        "train: its train folder; test: its test folder",
        str(root / "train"),
        str(root / "test"),
        normal=tuple(normal),
    )


def labelled_rows(source: str) -> list[Row]:
    """The rows of a source, labelled as ganad index labels them: one member of a tar alone does not
    tell what is abnormal."""
    with tempfile.TemporaryDirectory() as folder:
        return list(write_manifest([source], f"{folder}/manifest").table().to_pylist())


def tested_rows(chosen: DataSet) -> list[Row]:
    """The test images of a data set. Raises ConfigError unless some are known to be normal and
    others abnormal."""
    with tempfile.TemporaryDirectory() as folder:
        manifest = write_manifest([chosen.test], f"{folder}/manifest", normal=chosen.normal)
        rows = list(manifest.table().to_pylist())
    labels = ", ".join(sorted({str(row["label"]) for row in rows})[:SHOWN_LABELS])
    for value, word in ((False, "normal"), (True, "abnormal")):
        if not any(row["abnormal"] is value for row in rows):
            raise ConfigError(
                f"{chosen.name} has no test image that is known to be {word} (its labels: "
                f"{labels}): say which labels are normal by --normal"
            )
    return [row for row in rows if row["abnormal"] is not None]


def _digits(name: str, digit: int, work: Path) -> DataSet:
    folder = work / f"digits-{digit}"
    if not folder.is_dir():
        write_digits(folder, abnormal_digit=digit, typed=True)
    return DataSet(
        name,
        f"digit {digit} abnormal; train: 80 % of the other nine; test: the rest and every {digit}",
        str(folder / "types"),
        str(folder / "test"),
        ("image_size=32", "channels=1"),
        _others(digit),
    )


def write_digits(folder: Path, seed: int = 0, abnormal_digit: int = 0, typed: bool = False) -> None:
    """Write the digits as grey PNG files in the MVTec layout.

    train/good/3_0012.png and test/good/7_0150.png are normal, test/digit_0/0_0000.png is not (if 0
    is the abnormal digit); the number counts scikit-learn's order. typed: types/digit_3/… in place
    of train/good/…, so that labels tell the types of the normal images. The same files at every
    call.
    """
    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # 0..16 -> 0..255
    normal = np.flatnonzero(digits.target != abnormal_digit)
    order = np.random.default_rng(seed).permutation(normal)
    train = set(order[: int(TRAIN_SHARE * len(order))].tolist())
    for number, (image, digit) in enumerate(zip(pixels, digits.target.tolist(), strict=True)):
        if digit == abnormal_digit:
            place = folder / "test" / f"digit_{digit}"
        else:
            trained = Path("types", f"digit_{digit}") if typed else Path("train", "good")
            place = folder / (trained if number in train else Path("test", "good"))
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{digit}_{number:04d}.png")


def _mnist(name: str, digit: int, every: int, data: Path, work: Path) -> DataSet:
    folder = work / (f"mnist-{digit}" if every == 1 else f"mnist-{digit}-every-{every}")
    train, test = folder / "train.tar", folder / "test.tar"
    if not test.exists():
        raw = data / "MNIST" / "raw"
        if not raw.is_dir():
            raise ArchiveError(f"{name} needs MNIST's IDX files in {raw}: put them there")
        folder.mkdir(parents=True, exist_ok=True)
        own, other = _idx(raw, "train"), _idx(raw, "t10k")
        normal = ((im, f"digit_{d}") for im, d in zip(*own, strict=True) if d != digit)
        _write_tar(train, islice(normal, None, None, every))
        _write_tar(test, islice(_tested(own, other, digit), None, None, every))
    return DataSet(
        name,
        f"digit {digit} abnormal; train: the official training images of the other nine; "
        f"test: their official test images and every {digit} of both"
        + (f"; one image in {every} of each" if every > 1 else ""),
        str(train),
        str(test),
        ("image_size=32", "channels=1"),
        _others(digit),
    )


def _others(digit: int) -> tuple[str, ...]:
    return tuple(f"digit_{other}" for other in range(10) if other != digit)


def _tested(
    own: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray], digit: int
) -> Iterator[tuple[np.ndarray, str]]:
    for images, digits, keep_normal in ((*own, False), (*other, True)):
        for image, its in zip(images, digits, strict=True):
            if its == digit:
                yield image, f"test/digit_{digit}"
            elif keep_normal:
                yield image, "test/good"


def _idx(raw: Path, which: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 28, 28) and digits (n,) of MNIST's own files."""
    images = np.frombuffer((raw / f"{which}-images-idx3-ubyte").read_bytes(), np.uint8, offset=16)
    digits = np.frombuffer((raw / f"{which}-labels-idx1-ubyte").read_bytes(), np.uint8, offset=8)
    return images.reshape(-1, 28, 28), digits


def _write_tar(path: Path, images: Labelled) -> None:
    """PNG files in one .tar, which appears complete or not at all."""
    fresh = path.with_suffix(".part")
    with tarfile.open(fresh, "w") as tar:
        for number, (image, folder) in enumerate(images):
            png = io.BytesIO()
            Image.fromarray(image).save(png, "PNG")
            member = tarfile.TarInfo(f"{folder}/{number:05d}.png")
            member.size = png.tell()
            png.seek(0)
            tar.addfile(member, png)
    fresh.rename(path)
