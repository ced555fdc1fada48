"""Selects the rows of a manifest to train on, and splits them by a hash of the name."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from ganad.errors import TrainingError

Subset = Literal["train", "calibration", "validation"]

CALIBRATION, VALIDATION = 0.15, 0.05
"""Fractions held out of training; fine-grained p-values need at least 200 calibration images."""


def normal_rows(rows: pa.Table, typed: str, drop_abnormal: bool = False) -> pa.Table:
    """The rows to train on: those of the layout's train folder if there is one, without rows that
    are labelled abnormal or have an error. typed: the source as the user typed it.

    Raises TrainingError if there are abnormal images and drop_abnormal is not set, or if no row is
    left.
    """
    if "error" in rows.column_names:
        rows = rows.filter(pc.is_null(rows["error"]))
    if pc.any(pc.equal(rows["split"], "train")).as_py():
        rows = rows.filter(pc.equal(rows["split"], "train"))
    abnormal = pc.fill_null(rows["abnormal"], False)
    if pc.any(abnormal).as_py():
        if not drop_abnormal:
            counts = Counter(rows.filter(abnormal)["label"].to_pylist())
            shown = ", ".join(f"{label} {count}" for label, count in counts.most_common(4))
            raise TrainingError(
                f"{typed} holds {sum(counts.values())} images labelled abnormal ({shown}), and a "
                f"detector learns from normal ones only: give the folder of normal images, or "
                f"leave them out with --drop-abnormal"
            )
        rows = rows.filter(pc.invert(abnormal))
    if len(rows) == 0:
        raise TrainingError(f"{typed} holds no normal images: give a source that has some")
    return rows


def with_subsets(rows: pa.Table, seed: int, folds: int = 0) -> pa.Table:
    """The rows sorted by name, with an additional column `part`, the subset of each.

    folds: 0, or the number of folds of a crossed calibration: the subsets are then fold-0, fold-1
    and so on.
    """
    rows = rows.sort_by([("name", "ascending"), ("image_id", "ascending")])
    names = rows["name"].to_pylist()
    if folds:
        subsets = [fold_name(int(_place(f"{seed}\0fold\0{name}") * folds)) for name in names]
    else:
        subsets = [subset_of(name, seed) for name in names]
    return rows.append_column("part", pa.array(subsets, pa.string()))


def fold_name(number: int) -> str:
    """The name of a fold as a subset."""
    return f"fold-{number}"


def fold_names(folds: int) -> list[str]:
    """The folds of a crossed calibration as subsets; none for 0."""
    return [fold_name(number) for number in range(folds)]


def subset_of(
    name: str, seed: int, calibration: float = CALIBRATION, validation: float = VALIDATION
) -> Subset:
    """The subset of one image. It depends only on name and seed, so an archive that grows or moves
    keeps its split."""
    place = _place(f"{seed}\0{name}")
    if place < calibration:
        return "calibration"
    return "validation" if place < calibration + validation else "train"


def _place(text: str) -> float:
    """0 <= place < 1, evenly spread over texts."""
    word = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return min(int.from_bytes(word, "big") / 2**64, 1 - 2**-53)  # the largest would round to 1


def split_digest(names_and_subsets: Iterable[tuple[str, str]]) -> str:
    """Digest of a split, 16 hex characters; the order does not matter."""
    digest = hashlib.blake2b(digest_size=8)
    for name, subset in sorted(names_and_subsets):
        digest.update(f"{name}\0{subset}\n".encode())
    return digest.hexdigest()
