"""Several models of a table asked as one."""

import numpy as np
import pytest
from scipy import stats

from ganad.errors import ConfigError
from ganad.evaluation.ensemble import WAYS, add_ensemble
from ganad.scores.table import ScoreTable
from tests.ganad.scores.make_table import MODEL, OTHER, make_rows, small_table, write_table

THIRD = "knn-1"


@pytest.fixture
def table(tmp_path):
    rows = {
        MODEL: make_rows(num=90),
        OTHER: make_rows(num=90, seed=1),
        THIRD: make_rows(num=90, seed=2, num_failed=5),
    }
    return ScoreTable(write_table(str(tmp_path / "t"), rows))


def p_values(model, table):
    found = table.query(
        f"SELECT image_id, p_value FROM scores WHERE model = '{model}' AND score IS NOT NULL"
    ).to_pylist()
    return {row["image_id"]: row["p_value"] for row in found}


@pytest.mark.parametrize("way", WAYS)
def test_p_values_are_combined_as_published(table, way):
    session = table.session()
    add_ensemble(session, table.models, way)
    rows = session.query("SELECT * FROM ensemble").to_pylist()
    members = {model: p_values(model, table) for model in table.models}
    assert len(rows) == 85  # of an image that one model could not score nothing can be said
    for row in rows:
        ps = [members[model][row["image_id"]] for model in table.models]
        expected = {
            "fisher": stats.combine_pvalues(ps, "fisher").pvalue,
            "min": min(1, 3 * min(ps)),
            "mean": min(1, 2 * np.mean(ps)),
        }[way]
        assert row["p_value"] == pytest.approx(expected, abs=1e-12)
        assert [row[f"{model} p"] for model in table.models] == ps
        assert row["model"] == f"{way} of 3 models"
    session.close()


def test_equal_p_values_are_ranked_by_the_scores(table):
    session = table.session()
    add_ensemble(session, table.models, "min")
    rows = session.query("SELECT * FROM ensemble ORDER BY score DESC").to_pylist()
    assert (rows[0]["score"], rows[-1]["score"]) == (1, 0)
    combined = [row["p_value"] for row in rows]
    assert combined == sorted(combined)
    tied = [row for row in rows if row["p_value"] == combined[0]]
    assert len(tied) > 3
    assert len({row["score"] for row in tied}) == len(tied)
    session.close()


def test_columns_are_those_of_scores_and_the_members(table):
    session = table.session()
    shown = add_ensemble(session, table.models, "fisher")
    names = session.query("SELECT * FROM ensemble LIMIT 0").column_names
    assert {"model", "image_id", "uri", "member", "name", "score", "p_value", "error"} <= {*names}
    assert {*shown} <= {*names}
    assert f"{THIRD} score" in shown
    session.close()


def test_one_model_is_no_ensemble(tmp_path, table):
    alone = ScoreTable(small_table(tmp_path / "u"))
    session = alone.session()
    with pytest.raises(ConfigError, match="^--ensemble min needs at least two models"):
        add_ensemble(session, alone.models, "min")
    with pytest.raises(ConfigError, match="^--ensemble max is not known: give fisher, min, mean"):
        add_ensemble(session, table.models, "max")
    session.close()
