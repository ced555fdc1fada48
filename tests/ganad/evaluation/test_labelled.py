import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ganad.archive.manifest import write_manifest
from ganad.calibration import Calibration
from ganad.errors import ConfigError, TableError
from ganad.evaluation.labelled import Labelled
from ganad.scores.table import ScoreTable
from tests.ganad.scores.make_table import (
    MODEL,
    OTHER,
    make_rows,
    rows_of,
    small_table,
    write_table,
)


@pytest.fixture
def table(tmp_path):
    return ScoreTable(small_table(tmp_path))


def test_the_tables_own_labels(table):
    labelled = Labelled(table)
    arrays = labelled.arrays(MODEL)
    written = [row for row in make_rows() if row["score"] is not None]
    np.testing.assert_array_equal(arrays.scores, [row["score"] for row in written])
    np.testing.assert_array_equal(arrays.p_values, [row["p_value"] for row in written])
    np.testing.assert_array_equal(arrays.abnormal, [row["abnormal"] for row in written])
    assert arrays.labels.tolist() == [row["label"] for row in written]
    assert f"{MODEL}, left out: 2 images without a score, 1 of them abnormal" in labelled.notes


def test_images_without_a_label_are_left_out_and_said(tmp_path):
    rows = make_rows(num_failed=0)
    rows[5] |= {"label": None, "abnormal": None}
    labelled = Labelled(ScoreTable(write_table(str(tmp_path / "t"), {MODEL: rows})))
    assert len(labelled.arrays(MODEL).scores) == 59
    assert "left out: 1 image without a label" in labelled.notes


def test_a_table_without_labels_is_refused_with_the_remedy(tmp_path):
    folder = small_table(tmp_path, labelled=False)
    with pytest.raises(TableError, match=r"holds no labels: give --labels FILE.csv") as error:
        Labelled(ScoreTable(folder))
    assert str(error.value).startswith(folder)


def test_images_that_detectors_are_fitted_on_are_left_out(image_folder, tmp_path):
    folder = str(tmp_path / "t")
    manifest = write_manifest([str(image_folder)], f"{folder}/_manifest")
    place = {"uri": manifest.uri, "digest": manifest.digest, "images": 56}
    write_table(folder, {MODEL: rows_of(manifest)}, manifest=place)
    labelled = Labelled(ScoreTable(folder))
    assert labelled.notes[0] == (
        "left out: 40 images of the archive's train folder, on which detectors are trained"
    )
    arrays = labelled.arrays(MODEL)
    assert (len(arrays.scores), arrays.abnormal.sum()) == (16, 8)


def test_labels_of_train_images_alone_are_refused(image_folder, tmp_path):
    folder = str(tmp_path / "t")
    manifest = write_manifest([str(image_folder / "train")], f"{folder}/_manifest")
    place = {"uri": manifest.uri, "digest": manifest.digest, "images": 40}
    write_table(folder, {MODEL: rows_of(manifest)}, manifest=place)
    with pytest.raises(TableError, match="score the test images too"):
        Labelled(ScoreTable(folder))


def test_images_that_calibrated_the_model_are_told(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    ids = tuple(row["image_id"] for row in make_rows()[10:30])
    pq.write_table(Calibration(np.arange(20.0), ids).to_table(), model / "calibration.parquet")
    (model / "model.json").write_text(json.dumps({"id": MODEL}))
    folder = str(tmp_path / "t")
    models = [{"model": MODEL, "path": str(model), "detector": "ganomaly"}]
    write_table(folder, {MODEL: make_rows()}, models=models)
    notes = Labelled(ScoreTable(folder)).notes
    assert any(f"{MODEL} was calibrated on 20 images of these" in note for note in notes)
    (model / "model.json").write_text(json.dumps({"id": OTHER}))  # trained anew in its place
    assert not any("calibrated" in note for note in Labelled(ScoreTable(folder)).notes)


@pytest.mark.parametrize("kind", ["name", "uri", "path"])
def test_a_csv_replaces_the_labels(table, tmp_path, kind):
    csv = tmp_path / "labels.csv"
    rows = [row for row in make_rows() if row["score"] is not None][:20]
    keys = [row["uri"] if kind == "uri" else row["name"] for row in rows]
    lines = [f'"{key}",{"good" if i % 2 else "dent, deep"}' for i, key in enumerate(keys)]
    csv.write_text("\n".join([f"{kind},label", *lines]).replace(",dent, deep", ',"dent, deep"'))
    labelled = Labelled(table, str(csv))
    arrays = labelled.arrays(MODEL)
    assert arrays.abnormal.tolist() == [True, False] * 10
    assert set(arrays.labels.tolist()) == {"good", "dent, deep"}
    np.testing.assert_array_equal(arrays.scores, [row["score"] for row in rows])


def test_a_csv_with_a_column_abnormal_is_believed(table, tmp_path):
    csv = tmp_path / "labels.csv"
    csv.write_text(
        "name,label,abnormal\ngood/002.png,A,true\ngood/004.png,B,false\nnone.png,B,no\n"
    )
    labelled = Labelled(table, str(csv))
    assert labelled.arrays(MODEL).abnormal.tolist() == [True, False]
    assert labelled.notes == [f"{csv} has 3 labels, for 2 images of the table"]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("name,label\nx.png,good\n", TableError, "names no image of .*: give names such as hole/"),
        ("name,label\ngood/002.png,A\n", ConfigError, "add a column abnormal"),
        ("name,label\ngood/002.png,good\ngood/002.png,bad\n", ConfigError, "lines 2 and 3"),
        ("file,class\na,b\n", ConfigError, "first line names the columns file, class"),
    ],
)
def test_a_wrong_csv_is_told(table, tmp_path, text, error, message):
    csv = tmp_path / "labels.csv"
    csv.write_text(text)
    with pytest.raises(error, match=message) as raised:
        Labelled(table, str(csv))
    assert str(raised.value).startswith(str(csv))


def test_an_unfinished_run_and_a_lost_manifest_are_told(tmp_path):
    folder = write_table(str(tmp_path / "t"), {MODEL: make_rows()}, run=False)
    notes = Labelled(ScoreTable(folder)).notes
    assert any("run has not finished" in note for note in notes)
    assert any("manifest is gone" in note for note in notes)


def test_a_model_without_calibration_has_no_p_values(tmp_path):
    rows = [row | {"p_value": None} for row in make_rows()]
    labelled = Labelled(ScoreTable(write_table(str(tmp_path / "t"), {MODEL: rows})))
    assert labelled.arrays(MODEL).p_values is None


def test_rows_come_in_batches(table):
    batches = list(Labelled(table).rows(MODEL, 25))
    assert sum(map(len, batches)) == 58
    assert max(map(len, batches)) <= 25
    assert Path(batches[0][0]["uri"]).is_absolute()
