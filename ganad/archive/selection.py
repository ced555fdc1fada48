"""Which rows of a manifest may train a detector: normal ones, and the split between them."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from ganad.archive.split import part_of
from ganad.errors import TrainingError


def normal_rows(rows: pa.Table, typed: str, drop_abnormal: bool = False) -> pa.Table:
    """The rows to train on: of the layout's train folder if there is one, none known as abnormal.

    typed is what the user calls the source. Raises TrainingError if abnormal images are among
    them and drop_abnormal is not set, or if nothing is left.
    """
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


def with_parts(rows: pa.Table, seed: int) -> pa.Table:
    """The rows sorted by name, with a column `part`: train, calibration or validation."""
    rows = rows.sort_by([("name", "ascending"), ("image_id", "ascending")])
    parts = [part_of(name, seed) for name in rows["name"].to_pylist()]
    return rows.append_column("part", pa.array(parts, pa.string()))
