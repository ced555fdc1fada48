import csv
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ganad.archive.manifest import write_manifest
from ganad.archive.verdicts import DEFECT, FALSE_ALARM, NONE
from ganad.browse.verdicts import Verdicts
from ganad.errors import ConfigError, QueryError
from ganad.scores.table import ScoreTable
from pipelines.cli.query import query, split_words
from tests.ganad.scores.make_table import MODEL, OTHER, make_rows, rows_of, write_table


@pytest.fixture
def table(tmp_path):
    return write_table(str(tmp_path / "t"), {MODEL: make_rows(), OTHER: make_rows(seed=1)})


def answer(table, *args, **options):
    out = io.StringIO()
    query(table, *args, **options, out=out)
    return out.getvalue()


def rows(table, *args, **options):
    return json.loads(answer(table, *args, format="json", **options))


def test_top_gives_the_highest_scores_of_each_model_and_no_errors(table):
    found = rows(table, top=3)
    for model, seed in ((MODEL, 0), (OTHER, 1)):
        scores = sorted((r["score"] for r in make_rows(seed=seed) if r["score"]), reverse=True)
        assert [row["score"] for row in found if row["model"] == model] == scores[:3]
    assert [row["model"] for row in found] == [MODEL] * 3 + [OTHER] * 3


def test_nothing_asked_gives_the_first_twenty(table):
    assert len(rows(table)) == 40


def test_where_gives_all_that_match_and_can_ask_for_errors(table):
    assert {row["error"] for row in rows(table, where="error IS NOT NULL")} == {"empty file"}
    found = rows(table, where="label = 'good' -- a comment")
    assert {row["label"] for row in found} == {"good"}
    assert len(found) == 80


def test_top_and_where_together(table):
    found = rows(table, top=2, where="label = 'good' OR label = 'hole'")
    assert len(found) == 4
    assert not any(row["label"] == "scratch" for row in found)
    assert all(row["score"] is not None for row in found)


def test_equal_scores_come_in_the_order_of_their_ids(tmp_path):
    same = [row | {"score": 1.0} for row in make_rows(num=30, num_failed=0)]
    folder = write_table(str(tmp_path / "t"), {MODEL: same[::-1]})
    assert [row["image_id"] for row in rows(folder, top=5)] == [f"{i:016x}" for i in range(5)]


def test_sql_of_any_kind(table):
    found = rows(table, "SELECT label, count(*) AS n FROM scores GROUP BY label ORDER BY label")
    assert found == [
        {"label": "good", "n": 80},
        {"label": "hole", "n": 20},
        {"label": "scratch", "n": 20},
    ]


def test_columns_of_one_name_are_told_apart(table):
    sql = (
        f"SELECT a.score, b.score FROM scores a JOIN scores b USING (image_id) "
        f"WHERE a.model = '{MODEL}' AND b.model = '{OTHER}' AND image_id = '{5:016x}'"
    )
    assert rows(table, sql) == [
        {"score": make_rows()[5]["score"], "score_2": make_rows(seed=1)[5]["score"]}
    ]


VALUES = """SELECT TIMESTAMPTZ '2025-01-02 03:04:05+00' AS a, DATE '2025-01-02' AS b,
1.50::DECIMAL(4, 2) AS c, 'nan'::DOUBLE AS d, 'inf'::DOUBLE AS e, [1, NULL] AS f,
MAP {'k': 1.5} AS g, 'ü"\n,' AS h, NULL AS i, true AS j, 'x'::BLOB AS k, 12345678901234567890 AS l,
{'m': 1} AS m, TIME '10:00' AS n, uuid() AS o, INTERVAL 1 DAY AS p, 2::BIGINT AS q"""


def test_json_is_valid_whatever_the_values(table):
    (row,) = rows(table, VALUES)
    assert (row["a"], row["b"]) == ("2025-01-02T03:04:05+00:00", "2025-01-02")
    assert (row["c"], row["d"], row["e"], row["f"]) == (1.5, None, None, [1, None])
    assert (row["g"], row["h"], row["i"], row["j"]) == ({"k": 1.5}, 'ü"\n,', None, True)
    assert (row["k"], row["l"], row["m"], row["q"]) == ("78", 12345678901234567890, {"m": 1}, 2)
    answer(table, VALUES, format="json").encode("utf-8")


def test_csv_is_read_back_whatever_the_values(table):
    text = answer(table, VALUES, format="csv")
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert row["h"] == 'ü"\n,'
    assert (row["d"], row["i"], row["j"], row["g"]) == ("", "", "true", '{"k": 1.5}')


def test_no_rows_are_an_answer_too(table):
    assert rows(table, where="score > 1e9") == []
    assert answer(table, where="score > 1e9", format="csv").startswith("image_id,uri,")
    assert "no rows" in answer(table, where="score > 1e9")


def test_the_table_for_people(table):
    text = answer(table, top=2)
    lines = [line.split() for line in text.splitlines()]
    assert lines[0] == ["model", "label", "score", "p_value", "name"]
    assert lines[1] == [MODEL, "hole", "3.042", "0.01", "hole/036.png"]
    assert len(lines) == 5


def test_one_model_needs_no_column_of_its_own(tmp_path):
    folder = write_table(str(tmp_path / "t"), {MODEL: make_rows()})
    assert answer(folder, top=1).split()[:4] == ["label", "score", "p_value", "name"]


def test_rows_wider_than_the_terminal_become_records(table):
    text = answer(table, "SELECT * FROM scores ORDER BY image_id LIMIT 2")
    assert text.splitlines()[0].split() == ["image_id", "0" * 16]
    assert sum(line.startswith("uri ") for line in text.splitlines()) == 2


def test_a_long_table_says_that_there_is_more(table):
    text = answer(table, "SELECT range AS n FROM range(5000)")
    assert "only the first 100 rows are shown" in text
    assert len(text.splitlines()) == 102
    assert len(rows(table, "SELECT range AS n FROM range(5000)")) == 5000


def test_names_cannot_command_the_terminal(tmp_path):
    evil = [row | {"name": "[red]\x1b[2J\u009b31m.png"} for row in make_rows(num=3, num_failed=0)]
    text = answer(write_table(str(tmp_path / "t"), {MODEL: evil}), top=1)
    assert "[red]�[2J�31m.png" in text
    assert "\x1b" not in text


def test_every_type_of_duckdb_is_printed(table):
    sql = "FROM test_all_types()"
    assert len(json.loads(answer(table, sql, format="json"))) == 3
    assert len(list(csv.reader(io.StringIO(answer(table, sql, format="csv"))))) == 4
    assert "83 years 3 months" in answer(table, sql)


def test_tables_are_views_named_after_their_folders(table, tmp_path, capsys):
    later = write_table(str(tmp_path / "night 2"), {MODEL: make_rows(seed=5)})
    sql = (
        "SELECT a.score AS before, b.score AS after FROM t a JOIN night_2 b "
        f"USING (image_id, model) WHERE image_id = '{5:016x}'"
    )
    assert rows([table, later], sql) == [
        {"before": make_rows()[5]["score"], "after": make_rows(seed=5)[5]["score"]}
    ]
    assert f"views: t is {table}, night_2 is {later}" in capsys.readouterr().err
    assert rows([table, later], "SELECT count(*) AS n FROM scores") == [{"n": 120}]
    with pytest.raises(QueryError, match="the views are scores, night_2, with the columns"):
        rows([table, later], "SELECT * FROM night_3")
    with pytest.raises(QueryError, match="give SQL, or one table"):
        rows([table, later], top=3)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("labels.csv", lambda path: path.write_text("name,verdict\ngood/004.png,fine\n")),
        (
            "labels.parquet",
            lambda path: pq.write_table(
                pa.table({"name": ["good/004.png"], "verdict": ["fine"]}), path
            ),
        ),
        (
            "it's labels.jsonl",
            lambda path: path.write_text('{"name": "good/004.png", "verdict": "fine"}\n'),
        ),
    ],
)
def test_a_file_is_a_view_of_its_name(table, tmp_path, name, write):
    write(tmp_path / name)
    view = "it_s_labels" if "'" in name else "labels"
    sql = f"SELECT verdict, count(*) AS n FROM scores JOIN {view} USING (name) GROUP BY verdict"
    assert rows(table, sql, files=[str(tmp_path / name)]) == [{"verdict": "fine", "n": 2}]


def test_a_file_that_is_no_table_is_named(table, tmp_path):
    (tmp_path / "x.png").touch()
    (tmp_path / "x.parquet").write_bytes(b"nothing")
    for name, message in (
        ("x.png", "is not a table: give a .csv, .parquet"),
        ("gone.csv", "does not exist"),
        ("x.parquet", "cannot be read"),
    ):
        place = str(tmp_path / name)
        with pytest.raises(ConfigError, match=f"^--with {place} {message}"):
            rows(table, "SELECT 1", files=[place])


def test_other_files_stay_out_of_reach(table, tmp_path):
    (tmp_path / "labels.csv").write_text("name\nx\n")
    (tmp_path / "secret.csv").write_text("key\ns3cret\n")
    for place in (tmp_path / "secret.csv", "scores://with/labels/secret.csv"):
        with pytest.raises(QueryError, match=r"Permission|not a part|No files|IO Error"):
            rows(table, f"FROM read_csv('{place}')", files=[str(tmp_path / "labels.csv")])


def test_pivot_and_explain(table):
    sql = "PIVOT (SELECT label, model, score FROM scores) ON model USING count(score)"
    assert {row[MODEL] for row in rows(table, sql)} == {10, 9, 39}
    assert "READ_PARQUET" in answer(table, "EXPLAIN SELECT name FROM scores WHERE score > 1")


def test_a_budget_and_a_false_discovery_rate(table, capsys):
    assert len(rows(table, budget=4)) == 8
    assert f"{MODEL}: score >= " in capsys.readouterr().err
    found = rows(table, fdr=0.2, where="label = 'good'")
    assert {row["label"] for row in found} == {"good"}
    assert f"{OTHER}: " in capsys.readouterr().err


def test_an_ensemble_shows_its_members(table):
    (first, *_) = rows(table, ensemble="fisher", top=3)
    assert first["model"] == "fisher of 2 models"
    assert {f"{MODEL} score", f"{OTHER} p"} <= {*first}
    assert OTHER in answer(table, ensemble="fisher", top=3)
    assert len(rows(table, "SELECT * FROM ensemble", ensemble="mean")) == 58
    assert len(rows(table, ensemble="min", budget=5)) == 6  # the fifth and sixth are equal


@pytest.mark.parametrize("format", ["parquet", "arrow"])
def test_binary_formats_are_read_back(table, format, tmp_path):
    path = tmp_path / "rows"
    for sql, num in (("SELECT * FROM scores", 120), ("FROM test_all_types()", 3)):
        with path.open("w") as out:
            query(table, sql, format=format, out=out)
        found = pq.read_table(path) if format == "parquet" else pa.ipc.open_file(path).read_all()
        assert len(found) == num
    with path.open("w") as out:
        query(table, format=format, out=out)
    kept = ScoreTable(table).query("SELECT * FROM scores LIMIT 0").schema
    found = pq.read_table(path) if format == "parquet" else pa.ipc.open_file(path).read_all()
    assert found.schema.remove_metadata() == kept


def test_images_of_an_answer_are_copied(image_folder, tmp_path, capsys):
    manifest = write_manifest([str(image_folder / "test")], str(tmp_path / "m"))
    folder = write_table(str(tmp_path / "t"), {MODEL: rows_of(manifest)})
    text = answer(folder, top=3, copy_to=str(tmp_path / "copies"))
    assert "good/007.png" in text
    assert len(list((tmp_path / "copies").glob("*.png"))) == 3
    assert "3 images copied; rows.csv lists their rows" in capsys.readouterr().err
    answer(folder, "SELECT * FROM scores LIMIT 2", link_to=str(tmp_path / "links"))
    assert len(list((tmp_path / "links").glob("*.png"))) == 2
    with pytest.raises(QueryError, match=r"^--copy-to .* needs the column member"):
        answer(folder, "SELECT image_id, uri FROM scores", copy_to=str(tmp_path / "c"))


@pytest.mark.parametrize(
    ("words", "tables", "sql"),
    [
        (["t"], ["t"], None),
        (["t", "SELECT 1"], ["t"], "SELECT 1"),
        (["t", "SELEC"], ["t"], "SELEC"),
        (["t", "s3://b/u"], ["t", "s3://b/u"], None),
        (["t", "nights/u"], ["t", "nights/u"], None),
        (["t", "u", "FROM t"], ["t", "u"], "FROM t"),
        (["t", "."], ["t", "."], None),
        (["t", "SELECT 1/2"], ["t"], "SELECT 1/2"),
    ],
)
def test_the_last_word_is_sql_unless_it_is_a_place(words, tables, sql):
    assert split_words(words) == (tables, sql)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"top": 3, "budget": 3}, ConfigError, "^--top and --budget cannot be combined"),
        ({"sql": "SELECT 1", "fdr": 0.1}, QueryError, "^--fdr and SQL cannot be combined"),
        ({"copy_to": "a", "link_to": "b"}, ConfigError, "^--copy-to and --link-to cannot"),
        ({"budget": 0}, ConfigError, "^--budget 0 asks for no images"),
        ({"sql": "SELECT 1", "top": 3}, QueryError, "^--top and SQL cannot be combined"),
        ({"sql": "SELECT 1", "where": "true"}, QueryError, "^--where and SQL"),
        ({"where": "skore > 1"}, QueryError, '^"--where skore > 1": Binder Error'),
        ({"where": "true; DROP VIEW scores"}, QueryError, '^"--where true; DROP VIEW scores"'),
        ({"sql": "COPY scores TO 'x.csv'"}, QueryError, "can only be read"),
        (
            {"format": "xml"},
            ConfigError,
            "^--format xml is not known: give table, json, csv, par",
        ),
        ({"top": 0}, ConfigError, "^--top 0 asks for no images"),
    ],
)
def test_wrong_questions_are_told(table, options, error, message):
    with pytest.raises(error, match=message):
        answer(table, **options)


def test_standard_output_is_where_it_goes(table, capsys):
    query(table, top=1, format="json")
    assert len(json.loads(capsys.readouterr().out)) == 2


def test_verdicts_are_a_view(table):
    counted = "SELECT count(*) AS n FROM Verdicts"
    assert rows(table, counted) == [{"n": 0}]
    images = {row["image_id"]: row for row in ScoreTable(table).query("FROM scores").to_pylist()}
    first, second, third, *_ = images.values()
    ada, bob = (Verdicts(ScoreTable(table).uri, who) for who in ("Ada", "Bob"))
    ada.judge([first, second], DEFECT, MODEL)
    ada.judge([third], DEFECT, MODEL)
    ada.judge([third], NONE, MODEL)
    bob.judge([first], FALSE_ALARM, OTHER)
    found = rows(table, "SELECT * EXCLUDE judged_at FROM verdicts ORDER BY who")
    assert found == [
        {"image_id": row["image_id"], "name": row["name"], "verdict": said, "who": who, "model": by}
        for row, said, who, by in (
            (second, DEFECT, "Ada", MODEL),
            (first, FALSE_ALARM, "Bob", OTHER),
        )
    ]
    joined = "SELECT count(*) AS n FROM verdicts v JOIN scores USING (image_id) WHERE judged_at > "
    assert rows(table, joined + "TIMESTAMPTZ '2020-01-01'") == [{"n": 4}]
    assert len(rows(table, where="image_id IN (SELECT image_id FROM verdicts)")) == 4
