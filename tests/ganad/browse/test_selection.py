"""The filters of the grid: in the URL and back, and each image on exactly one page."""

from urllib.parse import parse_qsl

import pytest

from ganad.archive.verdicts import DEFECT, Verdict
from ganad.browse.selection import Rows, Selection
from ganad.errors import ConfigError, QueryError
from tests.ganad.scores.make_table import MODEL, OTHER

MODELS = [MODEL, OTHER]


@pytest.fixture
def rows(table):
    rows = Rows(table)
    yield rows
    rows.close()


def test_the_state_is_in_the_url():
    state = Selection(
        MODEL, OTHER, 0.05, "line 1/a&b", "scratch", "only", "none", "a = '%'", 7, 24, True, True
    )
    assert Selection.parse(dict(parse_qsl(state.url()[1:])), MODELS) == state
    assert Selection.parse({}, MODELS) == Selection(MODEL)


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"model": "x"}, "model=x: choose one of"),
        ({"p": "nan"}, "p=nan: give a number"),
        ({"p": "two"}, "p=two: give a number"),
        ({"page": "0"}, "page=0: give a whole number"),
        ({"page": "9" * 400}, "give a whole number"),
        ({"size": "-1"}, "size=-1: give a whole number"),
        ({"verdict": "maybe"}, "verdict=maybe: choose one of"),
    ],
)
def test_a_wrong_parameter_is_named(parameters, problem):
    with pytest.raises(ConfigError, match=problem):
        Selection.parse(parameters, MODELS)


def test_every_image_is_on_one_page_and_scores_fall(rows):
    state = Selection(MODEL, errors="with", size=7)
    assert rows.count(state) == 60
    found = []
    for page in range(1, 10):
        found += rows.page(Selection(MODEL, errors="with", size=7, page=page))
    assert len({row["image_id"] for row in found}) == len(found) == 60
    scores = [row["score"] for row in found]
    assert scores[-2:] == [None, None]
    assert scores[:-2] == sorted(scores[:-2], reverse=True)


def test_filters_let_through_what_they_say(rows):
    assert {row["folder"] for row in rows.page(Selection(MODEL, folder="hole"))} == {"hole"}
    assert {row["label"] for row in rows.page(Selection(MODEL, label="scratch"))} == {"scratch"}
    assert all(row["p_value"] < 0.1 for row in rows.page(Selection(MODEL, p_below=0.1)))
    assert all(row["error"] for row in rows.page(Selection(MODEL, errors="only")))
    (row,) = rows.page(Selection(MODEL, where="name = 'good/007.png' -- a comment"))
    assert row["name"] == "good/007.png"


@pytest.mark.parametrize(
    "where", ["nonsense = 1", "1 = 1) OR (", "true; DROP VIEW scores", "score > (SELECT"]
)
def test_a_condition_that_is_not_sql_is_quoted_back(rows, where):
    with pytest.raises(QueryError):
        rows.page(Selection(MODEL, where=where))


def test_a_condition_reaches_no_file(rows, tmp_path):
    (tmp_path / "secret.csv").write_text("a\n1\n")
    with pytest.raises(QueryError):
        rows.page(Selection(MODEL, where=f"1 IN (SELECT a FROM '{tmp_path}/secret.csv')"))


def test_verdicts_can_be_filtered(rows):
    row = rows.page(Selection(MODEL))[0]
    rows.set_verdicts({row["image_id"]: Verdict.of(row, DEFECT, "Ada", MODEL)})
    assert [one["image_id"] for one in rows.page(Selection(MODEL, verdict="defect"))] == [
        row["image_id"]
    ]
    assert rows.count(Selection(MODEL, verdict="none")) == 57
    assert rows.count(Selection(OTHER, where="verdict = 'defect'")) == 1
