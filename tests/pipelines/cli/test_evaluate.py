import csv
import io
import json
import re

import pytest

from ganad.errors import ConfigError, TableError
from pipelines.cli.evaluate import evaluate
from tests.ganad.scores.make_table import MODEL, OTHER, make_rows, small_table, write_table


def answer(table, **options):
    out = io.StringIO()
    evaluate(table, **options, out=out)
    return out.getvalue()


@pytest.fixture
def table(tmp_path):
    return write_table(str(tmp_path / "t"), {MODEL: make_rows(), OTHER: make_rows(seed=1)})


def test_every_figure_stands_beside_its_baseline(table):
    text = answer(table)
    lines = [line.split() for line in text[text.index(MODEL) :].splitlines()]
    assert lines[0] == [MODEL]
    assert lines[2][:6] == ["(all)", "58", "19", "(32.8%)", "0.870", "(0.50)"]
    assert lines[2][6:] == [".72–.95", "0.852", "(0.33)", "0.813", "(0.49)"]
    assert lines[7][:7] == ["(all)", "0.733", "(0.49)", "1.000", "(0.33)", "0.579", "(0.05)"]
    assert "note: " in text
    assert "2 images without a score, 1 of them abnormal" in text


def test_it_fits_a_narrow_terminal(table, monkeypatch):
    figures = re.sub(r"(?m)^.*differ significantly.*$", "", answer(table).split("In brackets")[0])
    assert max(map(len, figures.splitlines())) <= 80


def test_json_holds_all_figures(table, capsys):
    found = json.loads(answer(table, format="json"))
    assert [(row["model"], row["label"]) for row in found[3:]] == [
        (MODEL, None),
        (MODEL, "hole"),
        (MODEL, "scratch"),
    ]
    whole = found[3]
    assert whole["auroc_low"] < whole["auroc"] < whole["auroc_high"]
    assert whole["auroc_behind_best"] == pytest.approx(found[0]["auroc"] - whole["auroc"])
    assert found[0]["auroc_behind_best"] is found[4]["auroc_behind_best"] is None
    assert (whole["num"], whole["num_abnormal"]) == (58, 19)
    assert whole["auroc"] == pytest.approx(0.8704, abs=1e-4)
    assert whole["auroc_chance"] == 0.5
    assert whole["aupr_chance"] == whole["anomaly_ratio"] == pytest.approx(19 / 58)
    assert whole["f1_flag_everything"] == pytest.approx(2 * 19 / 58 / (1 + 19 / 58))
    assert "left out: 2 images without a score" in capsys.readouterr().err


def test_csv_has_the_same_columns(table, capsys):
    found = list(csv.DictReader(io.StringIO(answer(table, format="csv"))))
    assert list(found[0]) == list(json.loads(answer(table, format="json"))[0])
    assert len(found) == 6
    capsys.readouterr()


def test_one_class_alone_says_so_and_gives_null(tmp_path, capsys):
    rows = [row for row in make_rows() if not row["abnormal"]]
    folder = write_table(str(tmp_path / "t"), {MODEL: rows})
    assert "no abnormal images, so nothing to compare" in answer(folder)
    (found,) = json.loads(answer(folder, format="json"))
    assert found["auroc"] is None
    assert found["reason"] == "no abnormal images, so nothing to compare"
    capsys.readouterr()


def test_labels_from_a_csv(table, tmp_path):
    labels = tmp_path / "labels.csv"
    lines = [f"{row['name']},{'good' if i % 2 else 'bad'}" for i, row in enumerate(make_rows())]
    labels.write_text("\n".join(["name,label", *lines]))
    text = answer(table, labels=str(labels))
    assert text.splitlines()[2].split()[:4] == ["(all)", "58", "29", "(50.0%)"]


def test_prices_of_mistakes(table, capsys):
    text = answer(table, cost="1:20")
    assert re.search(r"at cost 1:20: score >= \S+ costs \S+ per image on these, \S+ on held", text)
    (whole, *_) = json.loads(answer(table, cost="1:20", format="json"))
    assert whole["cost_per_image"] <= min(whole["cost_flag_nothing"], whole["cost_flag_everything"])
    with pytest.raises(ConfigError, match="^--cost 20 is not FP:FN"):
        answer(table, cost="20")
    capsys.readouterr()


def test_no_labels_are_told_with_the_remedy(tmp_path):
    folder = small_table(tmp_path, labelled=False)
    with pytest.raises(TableError, match="holds no labels: give --labels FILE.csv"):
        answer(folder)
    with pytest.raises(ConfigError, match="--format yaml is not known"):
        answer(folder, format="yaml")
