"""Images that a rule flags, and what the p-value thresholds of a question mean."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from ganad.calibration import Calibration
from ganad.errors import ConfigError
from ganad.evaluation.flags import by_budget, by_false_discoveries, p_thresholds, promises
from ganad.scores.table import ScoreTable
from tests.ganad.scores.make_table import MODEL, OTHER, make_rows, write_table


@pytest.fixture
def table(tmp_path):
    rows = {MODEL: make_rows(num=200), OTHER: make_rows(num=200, seed=1)}
    return ScoreTable(write_table(str(tmp_path / "t"), rows))


@pytest.fixture
def session(table):
    session = table.session()
    yield session
    session.close()


def flagged(session, flags, model=MODEL):
    found = session.query(f"SELECT * FROM scores WHERE ({flags.condition}) AND model = $1", model)
    return found.to_pylist()


def test_a_budget_is_the_highest_scores_of_each_model(session):
    flags = by_budget(session, 7)
    for model, seed in ((MODEL, 0), (OTHER, 1)):
        scores = sorted(row["score"] for row in make_rows(num=200, seed=seed) if row["score"])
        assert sorted(row["score"] for row in flagged(session, flags, model)) == scores[-7:]
    assert flags.sentences[0].startswith(f"{MODEL}: score >= ")
    assert "flags 7 of 198 images, p ≤ 0.01" in flags.sentences[0]


@pytest.mark.parametrize(("budget", "num"), [(5, 3), (10, 13), (2, 3), (1000, 60)])
def test_equal_scores_are_flagged_together_or_not_at_all(tmp_path, budget, num):
    rows = make_rows(num=60, num_failed=0)
    for place, row in enumerate(rows):
        row["score"] = 9.0 if place < 3 else 8.0 if place < 13 else 0.5
    session = ScoreTable(write_table(str(tmp_path / "u"), {MODEL: rows})).session()
    assert len(flagged(session, by_budget(session, budget))) == num
    session.close()


def test_false_discoveries_are_counted_for_each_model(table, session):
    flags = by_false_discoveries(table, session, 0.2)
    for model in (MODEL, OTHER):
        p_values = np.sort([row["p_value"] for row in flagged(session, flags, model)])
        everything = session.query(
            "SELECT p_value FROM scores WHERE model = $1 AND score IS NOT NULL", model
        )["p_value"].to_numpy()
        assert len(p_values) > 0
        assert p_values[-1] <= 0.2 * len(p_values) / len(everything) + 1e-9
    with pytest.raises(ConfigError, match="^--fdr 2 is not between 0 and 1"):
        by_false_discoveries(table, session, 2)


def test_nothing_to_flag_is_said_with_the_reason(tmp_path):
    rows = [row | {"p_value": row["p_value"] and 0.5} for row in make_rows()]
    table = ScoreTable(write_table(str(tmp_path / "u"), {MODEL: rows, OTHER: make_rows()}))
    session = table.session()
    flags = by_false_discoveries(table, session, 0.1)
    assert flagged(session, flags) == []
    assert flags.sentences[0] == (
        f"{MODEL}: no image at a false discovery rate of 0.1; the smallest p-value is 0.5"
    )
    session.close()


@pytest.mark.parametrize(
    ("sql", "numbers"),
    [
        ("SELECT * FROM scores WHERE p_value < 0.01 AND score > 2", [0.01]),
        ("SELECT * FROM scores s WHERE 1e-3 >= s.P_value", [0.001]),
        (
            "SELECT count(*) FILTER (p_value <= 0.05) FROM (FROM scores WHERE p_value < 0.2)",
            [0.05, 0.2],
        ),
        ("SELECT * FROM scores WHERE p_value > 0.01", []),
        ("SELECT * FROM scores WHERE score < 0.01", []),
        ("SELECT * FROM scores WHERE p_value < score OR p_value < 'x'", []),
        ("SELEC", []),
        ("PIVOT scores ON model USING sum(score)", []),
    ],
)
def test_thresholds_are_found_in_a_question(session, sql, numbers):
    assert sorted(p_thresholds(session, sql)) == numbers


def test_what_a_threshold_means_is_said_for_each_model(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    calibration = Calibration(np.arange(99.0), tuple(map(str, range(99))))
    pq.write_table(calibration.to_table(), model / "calibration.parquet")
    (model / "model.json").write_text(json.dumps({"id": MODEL}))
    models = [{"model": MODEL, "path": str(model), "detector": "ganomaly"}]
    folder = write_table(
        str(tmp_path / "t"), {MODEL: make_rows(), OTHER: make_rows()}, models=models
    )
    table = ScoreTable(folder)
    session = table.session()
    unreachable, gone = promises(table, session, "SELECT * FROM scores WHERE p_value < 0.01")
    assert unreachable == (
        f"{MODEL}: p < 0.01 flags nothing, because 99 calibration images give no p-value below "
        f"0.01: hold out 100 or more"
    )
    assert gone == f"{OTHER}: no image has p < 0.01, the smallest p-value is 0.01"
    (reachable,) = promises(table, session, "SELECT * FROM scores WHERE p_value < 0.05")
    assert "with 99 calibration images p < 0.05 flags between 1.1% and 8.6%" in reachable
    session.close()


def test_a_name_with_a_quote_is_a_name(tmp_path):
    rows = make_rows(num=30)
    table = ScoreTable(write_table(str(tmp_path / "o'brien"), {"it's-1": rows}))
    session = table.session()
    assert len(flagged(session, by_budget(session, 3), "it's-1")) == 3
    session.close()
