"""Selects the labelled rows of a score table, without training images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ganad.archive.labels import CsvRow, Naming, read_labels
from ganad.archive.layout import NORMAL_NAMES
from ganad.archive.manifest import open_manifest
from ganad.errors import ArchiveError, ConfigError, TableError
from ganad.scores.refetch import calibration_of
from ganad.scores.table import ScoreTable

_PLACE = "image_id, uri, member, name, width, height, mask, abnormal"


@dataclass(frozen=True, eq=False)
class Arrays:
    """The n labelled images that one model has scored. Every array has shape (n,)."""

    image_ids: np.ndarray
    """str, ascending"""
    scores: np.ndarray
    """float64"""
    p_values: np.ndarray | None
    """float64; None if the model was not calibrated."""
    abnormal: np.ndarray
    """bool"""
    labels: np.ndarray
    """str"""

    def only(self, chosen: np.ndarray) -> Arrays:
        """A subset of the images; chosen: bool (n,)."""
        p_values = None if self.p_values is None else self.p_values[chosen]
        return Arrays(
            self.image_ids[chosen],
            self.scores[chosen],
            p_values,
            self.abnormal[chosen],
            self.labels[chosen],
        )


class Labelled:
    """The labelled rows as a view `labelled` in a session of its own, with notes on what is left
    out.

    labels: a CSV in the format of ganad index; it replaces the labels of the table, and images that
    it does not name are unlabelled. Without a CSV, images of the layout's train folder are left
    out, because detectors are trained on them. Raises TableError if no image is labelled,
    ConfigError for an invalid CSV.
    """

    def __init__(self, table: ScoreTable, labels: str | None = None) -> None:
        self.table = table
        self.notes: list[str] = []
        self.session = table.session()
        if labels is None:
            self._use_table()
        else:
            self._use_csv(labels)
        self._count()

    def arrays(self, model: str) -> Arrays:
        """Scores and labels of one model."""
        rows = self.session.query(
            "SELECT image_id, score, p_value, abnormal, coalesce(label, '') AS label FROM labelled "
            "WHERE model = $1 AND score IS NOT NULL ORDER BY image_id",
            model,
        )
        p_values = rows["p_value"].to_numpy()
        return Arrays(
            rows["image_id"].to_numpy(),
            rows["score"].to_numpy(),
            p_values if rows["p_value"].null_count == 0 else None,
            rows["abnormal"].to_numpy(),
            rows["label"].to_numpy(),
        )

    def rows(self, model: str, batch: int) -> Iterator[list[dict[str, Any]]]:
        """Yield one model's rows with a score, in batches."""
        _, batches = self.session.stream(
            f"SELECT {_PLACE} FROM labelled WHERE model = $1 AND score IS NOT NULL",
            model,
            batch_rows=batch,
        )
        for part in batches:
            yield part.to_pylist()

    def distinct_rows(self, batch: int) -> Iterator[list[dict[str, Any]]]:
        """Yield one row for each labelled image that any model has scored, in batches."""
        _, batches = self.session.stream(
            f"SELECT DISTINCT ON (image_id) {_PLACE} FROM labelled WHERE score IS NOT NULL",
            batch_rows=batch,
        )
        for part in batches:
            yield part.to_pylist()

    @property
    def num_images(self) -> int:
        """Number of labelled images that any model has scored."""
        return self._images("labelled WHERE score IS NOT NULL")

    @property
    def is_remote(self) -> bool:
        """True if any of the images is on S3."""
        return bool(self._images("labelled WHERE starts_with(uri, 's3://')"))

    def num_masks(self, model: str) -> int:
        """Number of abnormal images with a score that have a mask."""
        rows = self.session.query(
            "SELECT count(mask) AS n FROM labelled "
            "WHERE model = $1 AND abnormal AND score IS NOT NULL",
            model,
        )
        return int(rows["n"][0].as_py())

    def _use_table(self) -> None:
        if self._images("scores WHERE abnormal IS NOT NULL") == 0:
            raise TableError(
                f"{self.table.typed} holds no labels: give --labels FILE.csv with the columns name "
                f"and label"
            )
        self.session.connection.register("train_ids", pa.table({"image_id": self._train_ids()}))
        self.session.connection.execute(
            "CREATE VIEW labelled AS SELECT * FROM scores "
            "WHERE abnormal IS NOT NULL AND image_id NOT IN (SELECT image_id FROM train_ids)"
        )
        left_out = self._images(
            "scores WHERE abnormal IS NOT NULL AND image_id IN (SELECT image_id FROM train_ids)"
        )
        if left_out:
            self.notes.append(
                f"left out: {images(left_out)} of the archive's train folder, on which detectors "
                f"are trained"
            )
        unlabelled = self._images("scores WHERE abnormal IS NULL")
        if unlabelled:
            self.notes.append(f"left out: {images(unlabelled)} without a label")
        if self._images("labelled") == 0:
            raise TableError(
                f"{self.table.typed} has labels only for images of a train folder, on which "
                f"detectors are trained: score the test images too"
            )

    def _train_ids(self) -> pa.ChunkedArray:
        try:
            rows = open_manifest(self._manifest_uri).table(["image_id", "split"])
        except ArchiveError:
            self.notes.append(
                "the manifest is gone, so images of a train folder, if any, are not left out"
            )
            return pa.chunked_array([[]], pa.string())
        return rows.filter(pc.fill_null(pc.equal(rows["split"], "train"), False))["image_id"]

    @cached_property
    def _manifest_uri(self) -> str:
        return self.table.manifest_uri

    def _use_csv(self, labels: str) -> None:
        rows = _read_csv(labels)
        self.session.connection.register("given", rows)
        # Two joins on equality, which are hash joins; "name = key OR uri = key" would compare
        # every image with every line.
        self.session.connection.execute(
            "CREATE VIEW labelled AS SELECT s.* REPLACE (coalesce(u.label, n.label) AS label, "
            "coalesce(u.abnormal, n.abnormal) AS abnormal, "
            "coalesce(u.mask, n.mask, s.mask) AS mask) "
            "FROM scores s LEFT JOIN given n ON s.name = n.key "
            "LEFT JOIN given u ON s.uri = u.key AND s.member IS NULL "
            "WHERE coalesce(u.abnormal, n.abnormal) IS NOT NULL"
        )
        num = self._images("labelled")
        if num == 0:
            example = self.session.query("SELECT name FROM scores LIMIT 1")["name"][0].as_py()
            raise TableError(
                f"{labels} names no image of {self.table.typed}: give names such as {example}"
            )
        if num < len(rows):
            self.notes.append(f"{labels} has {len(rows):,} labels, for {images(num)} of the table")

    def _images(self, source: str) -> int:
        rows = self.session.query(f"SELECT count(DISTINCT image_id) AS n FROM {source}")
        return int(rows["n"][0].as_py())

    def _count(self) -> None:
        failed = self.session.query(
            "SELECT model, count(*) AS n, count(*) FILTER (abnormal) AS num_abnormal "
            "FROM labelled WHERE score IS NULL GROUP BY model ORDER BY model"
        )
        for row in failed.to_pylist():
            self.notes.append(
                f"{row['model']}, left out: {images(row['n'])} without a score, "
                f"{row['num_abnormal']:,} of them abnormal"
            )
        if self.table.unfinished:
            self.notes.append("the scoring run has not finished, so some images have no score yet")
        for model in self.table.models:
            self._note_calibration(model)

    def _note_calibration(self, model: str) -> None:
        calibration = calibration_of(self.table, model)
        if calibration is None:
            return
        self.session.connection.register("ids", pa.table({"image_id": pa.array(calibration.ids)}))
        num = self._images("labelled WHERE image_id IN (SELECT image_id FROM ids)")
        self.session.connection.unregister("ids")
        if num:
            self.notes.append(
                f"{model} was calibrated on {images(num)} of these and trained on others, so its "
                f"metrics are too optimistic: evaluate it on images it has not seen"
            )


def images(num: int) -> str:
    """1 image, 2 images."""
    return f"{num:,} image{'' if num == 1 else 's'}"


def _read_csv(typed: str) -> pa.Table:
    """Read a CSV of labels. Columns of the result: key (a name, or an absolute URI), label,
    abnormal, mask; one row per key."""
    rows: dict[str, CsvRow] = {}
    for row in read_labels(typed):
        before = rows.setdefault(row.key, row)
        if (before.label, before.abnormal) != (row.label, row.abnormal):
            raise ConfigError(
                f"{typed}: lines {before.line} and {row.line} give {row.path} two labels: keep one"
            )
    siblings = {row.label for row in rows.values() if row.label is not None}
    naming = Naming()
    abnormal = [naming.judge(row.label or "", row.abnormal, siblings) for row in rows.values()]
    if any(truth is None for truth in abnormal):
        raise ConfigError(
            f"{typed}: does not say which labels are abnormal, because none is called "
            f"{' or '.join(NORMAL_NAMES)}: add a column abnormal"
        )
    return pa.table(
        {
            "key": pa.array(rows, pa.string()),
            "label": pa.array([row.label for row in rows.values()], pa.string()),
            "abnormal": pa.array(abnormal, pa.bool_()),
            "mask": pa.array([row.mask for row in rows.values()], pa.string()),
        }
    )
