"""A score table in a notebook answers as the commands do."""

import json
from io import StringIO
from pathlib import Path

import pytest

import ganad
from ganad.errors import ConfigError, GanadError, TableError
from ganad.evaluation.open_table import OpenTable
from pipelines.cli.query import query
from tests.ganad.scores.make_table import MODEL, OTHER, make_rows, write_table


@pytest.fixture
def table(tmp_path: Path) -> OpenTable:
    rows = {MODEL: make_rows(), OTHER: make_rows(seed=1)}
    return ganad.open_table(write_table(str(tmp_path / "table"), rows))


def ids(rows: object) -> list[tuple[str, str]]:
    return [(row["model"], row["image_id"]) for row in rows]  # type: ignore[attr-defined]


def asked(table: OpenTable, **question: object) -> list[tuple[str, str]]:
    """The answer of the command."""
    out = StringIO()
    query(table.typed, format="json", out=out, **question)  # type: ignore[arg-type]
    return ids(json.loads(out.getvalue()))


def test_every_kind_of_frame_has_every_row(table: OpenTable) -> None:
    arrow, pandas, polars = table.to_arrow(), table.to_pandas(), table.to_polars()
    assert len(arrow) == len(pandas) == len(polars) == 120
    assert list(pandas.columns) == polars.columns == arrow.column_names
    scored = pandas[pandas["score"].notna()].iloc[0]
    assert scored["terms"] == {"con": scored["score"] / 2, "enc": scored["score"] / 2}


def test_a_relation_filters_and_reads_no_other_file(table: OpenTable, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("a,b\n1,2\n")
    relation = table.relation()
    counted = relation.filter("error IS NOT NULL").aggregate("model, count(*) AS n", "model")
    assert sorted(counted.fetchall()) == sorted([(MODEL, 2), (OTHER, 2)])
    with pytest.raises(Exception, match="disabled"):
        relation.query("r", f"SELECT * FROM '{tmp_path}/secret.csv'").fetchall()


def test_answers_are_those_of_the_commands(table: OpenTable) -> None:
    assert ids(table.top(3).to_pylist()) == asked(table, top=3)
    where = "label = 'good'"
    assert ids(table.top(5, where).to_pylist()) == asked(table, top=5, where=where)
    assert ids(table.flagged(budget=7).to_pylist()) == asked(table, budget=7)
    flagged = ids(table.flagged(fdr=0.3).to_pylist())
    assert flagged == asked(table, fdr=0.3)
    assert flagged


def test_figures_come_best_first_and_a_table_equals_itself(table: OpenTable) -> None:
    aurocs = [group.ranking.auroc for group in table.evaluate().groups if group.label is None]
    assert aurocs == sorted(aurocs, reverse=True)  # type: ignore[type-var]
    same = table.compare(table.typed)
    assert {one.distance for one in same.comparisons} == {0.0}


def test_its_line_says_where_and_which_models(table: OpenTable) -> None:
    assert repr(table) == f"ScoreTable({table.typed}, 6 parts of {MODEL}, {OTHER})"


def test_questions_for_nothing_are_refused(table: OpenTable, tmp_path: Path) -> None:
    for wrong in ({}, {"fdr": 0.1, "budget": 3}, {"budget": 0}):
        with pytest.raises(ConfigError, match=r"^flagged\("):
            table.flagged(**wrong)
    with pytest.raises(ConfigError, match=r"^top\(0\)"):
        table.top(0)
    with pytest.raises(GanadError, match='^"labl = 1"'):
        table.top(3, "labl = 1")
    with pytest.raises(TableError, match="does not exist"):
        ganad.open_table(tmp_path / "none")
