import threading

import numpy as np
import pyarrow as pa
import pytest

from ganad.errors import QueryError, TableError
from ganad.scores.checksums import to_parquet
from ganad.scores.partfiles import PartFile, PartFiles
from ganad.scores.table import COLUMNS, SCHEMA, ScoreTable
from ganad.storage import files as storage
from ganad.storage.database import Limits
from tests.ganad.scores.make_table import (
    MODEL,
    OTHER,
    make_rows,
    small_table,
    write_something_else,
    write_table,
)


@pytest.fixture
def table(tmp_path):
    return ScoreTable(small_table(tmp_path))


def test_rows_come_back_as_written(table):
    rows = table.query("SELECT * FROM scores ORDER BY image_id").to_pylist()
    assert len(rows) == 60
    assert list(rows[0]) == list(COLUMNS)
    assert {row["model"] for row in rows} == {MODEL}
    for row, written in zip(rows, make_rows(), strict=True):
        assert {key: row[key] for key in written} == written


def test_types_are_kept_also_where_a_part_has_nulls_only(tmp_path):
    folder = str(tmp_path / "table")
    write_table(folder, {MODEL: make_rows(num=2, labelled=False)})
    found = ScoreTable(folder).query("SELECT * FROM scores")
    assert found.schema.remove_metadata() == SCHEMA


def test_terms_are_reached_by_name(table):
    found = table.query("SELECT terms['con'] AS con, score FROM scores WHERE error IS NULL")
    np.testing.assert_allclose(np.asarray(found["con"]) * 2, np.asarray(found["score"]))


def test_models_are_a_partition_that_filters_skip_files_by(tmp_path):
    folder = write_table(
        str(tmp_path / "table"), {MODEL: make_rows(), OTHER: make_rows(num=30, seed=1)}
    )
    table = ScoreTable(folder)
    assert table.models == [MODEL, OTHER]
    joined = "SELECT count(*) AS n FROM scores a JOIN scores b USING (image_id) WHERE a.model = "
    assert table.query(f"{joined} '{MODEL}' AND b.model = '{OTHER}'")["n"].to_pylist() == [30]
    plan = table.connect().execute(
        f"EXPLAIN SELECT name FROM scores WHERE model = '{OTHER}' AND score > 1"
    )
    text = plan.fetchall()[0][1]
    assert "2/5" in text  # files: two of OTHER's among five
    assert "score" in text.split("Filters")[1]


def test_a_model_like_a_number_stays_text(tmp_path):
    folder = write_table(str(tmp_path / "t"), {"00012": make_rows(num=3)})
    assert ScoreTable(folder).query("SELECT DISTINCT model FROM scores")["model"][0].as_py() == (
        "00012"
    )


def test_only_whole_parts_are_read(table):
    folder = storage.join(table.uri, f"model={MODEL}")
    for name in (".part-000009.parquet.0123abcd", "part-000009.parquet.tmp", "notes.txt"):
        storage.write_bytes(storage.join(folder, name), b"half of a part")
    again = ScoreTable(table.uri)
    assert again.parts == table.parts
    assert again.query("SELECT count(*) AS n FROM scores")["n"][0].as_py() == 60


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "does not exist: give a folder that ganad score wrote"),
        (lambda folder: folder.mkdir(), "is not a score table"),
        (lambda folder: (folder / f"model={MODEL}").mkdir(parents=True), "has no finished parts"),
        (
            lambda folder: storage.write_json(f"{folder}/job.json", {}),
            "has no finished parts yet: wait for ganad score",
        ),
        (lambda folder: storage.write_json(f"{folder}/model.json", {}), "is not a score table"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, make, message):
    folder = tmp_path / "x"
    make(folder)
    with pytest.raises(TableError, match=message) as error:
        ScoreTable(str(folder))
    assert str(error.value).startswith(str(folder))


def test_parts_of_something_else_are_refused(tmp_path):
    folder = write_something_else(tmp_path)
    with pytest.raises(TableError, match=r"files that are not parts of a score .*image_id"):
        ScoreTable(folder).connect()


def cut(data):
    return data[:3000]


def damaged_footer(data):
    return data[:-3000] + bytes(2992) + data[-8:]


def damaged_pages(data):
    return data[:4] + bytes(byte ^ 255 for byte in data[4:2000]) + data[2000:]


@pytest.mark.parametrize("damage", [cut, damaged_footer, damaged_pages, lambda data: b""])
def test_a_damaged_part_is_named_with_the_remedy(table, damage):
    part = list(table.parts)[1]
    storage.write_bytes(table.parts[part].uri, damage(storage.read_bytes(table.parts[part].uri)))
    for sql in ("SELECT * FROM scores", "SELECT max(name), max(terms['con']) FROM scores"):
        with pytest.raises(TableError) as error:
            ScoreTable(table.uri).query(sql)
        assert str(error.value) == (
            f"{table.uri} holds a part that cannot be read ({part}): run the same ganad score "
            f"command again, which scores its images again"
        )


def test_a_part_that_vanishes_is_named(table):
    (first, *_) = table.parts.values()
    storage.remove(first.uri)
    with pytest.raises(TableError, match=r"cannot be read: .*part-000000.parquet: there is no"):
        table.query("SELECT count(score) FROM scores")


FORBIDDEN = {
    "write": "COPY scores TO '{table}/stolen.csv'",
    "overwrite a part": "COPY scores TO 'scores://{part}' (FORMAT parquet)",
    "overwrite a file": "COPY (SELECT 1) TO '{table}/run.json' (USE_TMP_FILE false)",
    "write beside": "COPY scores TO 'scores://new.parquet'",
    "export": "EXPORT DATABASE '{table}/dump'",
    "attach": "ATTACH '{table}/other.db'",
    "attach inside": "ATTACH 'scores://other.db'",
    "install": "INSTALL httpfs",
    "load": "LOAD httpfs",
    "read a neighbour": "SELECT * FROM read_text('{table}/run.json')",
    "read a neighbour inside": "SELECT * FROM read_text('scores://run.json')",
    "read above": "SELECT * FROM read_text('scores://../secret.txt')",
    "read the parts around": "SELECT * FROM read_parquet('{table}/*/*.parquet')",
    "read the system": "SELECT * FROM read_csv('/etc/hostname')",
    "read as a table": "SELECT * FROM '/etc/hostname'",
    "list": "SELECT * FROM glob('/*')",
    "list inside": "FROM read_text('scores://*')",
    "fetch": "SELECT * FROM 'https://127.0.0.1:9/x.parquet'",
    "fetch from S3": "SELECT * FROM 's3://bucket/x.parquet'",
    "allow again": "SET enable_external_access = true",
    "unlock": "SET lock_configuration = false",
    "widen": "SET allowed_directories = ['/']",
    "profile": "PRAGMA profiling_output = '{table}/profile.json'",
    "a variable of Python": "SELECT * FROM secret_frame",
}


@pytest.mark.parametrize("sql", FORBIDDEN.values(), ids=FORBIDDEN)
@pytest.mark.parametrize("way", ["query", "connection"])
def test_sql_reads_the_table_and_does_nothing_else(table, tmp_path, sql, way):
    secret_frame = pa.table({"key": ["s3cret"]})
    (tmp_path / "secret.txt").write_text("s3cret")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    sql = sql.format(table=table.uri, part=next(iter(table.parts)))
    try:
        if way == "query":
            found = table.query(sql).to_pylist()
        else:
            answer = table.connect().sql(sql)
            found = [] if answer is None else answer.to_arrow_table().to_pylist()
    except QueryError as error:
        found = [str(error)]
    except Exception as error:
        assert way == "connection"  # DuckDB's own classes
        found = [str(error)]
    assert "s3cret" not in str(found)
    assert '"finished_at"' not in str(found)  # of run.json
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert len(secret_frame) == 1


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("DROP VIEW scores", "is a DROP statement, and a score table can only be read"),
        ("CREATE TABLE t AS SELECT 1", "is a CREATE statement"),
        ("SELECT 1; DROP VIEW scores", "holds 2 statements: give one SELECT"),
        ("-- nothing", "holds 0 statements"),
        ("SELEC 1", 'Parser Error: syntax error at or near "SELEC"'),
        ("SELECT skore FROM scores", 'Referenced column "skore" not found'),
        ("SELECT * FROM score", "Table with name score does not exist"),
        ("SELECT CASE WHEN score > 0 THEN error('boom') END FROM scores", "boom"),
        ("SELECT CAST(name AS INT) FROM scores", "Conversion Error"),
    ],
)
def test_wrong_sql_is_told_in_one_sentence(table, sql, message):
    with pytest.raises(QueryError, match=message.replace("(", r"\(")) as error:
        table.query(sql)
    text = str(error.value)
    assert text.startswith(f'"{sql}"')
    assert "\n" not in text
    assert text.endswith(("scored_at, model", "over scores"))


def test_pivot_and_explain_are_questions_too(table):
    pivoted = table.query(
        "PIVOT (SELECT label, score > 1 AS high, 1 AS n FROM scores) ON high USING sum(n)"
    )
    assert sum(pivoted["true"].to_pylist()) == len(
        [s for s in make_rows() if (s["score"] or 0) > 1]
    )
    plan = table.query("EXPLAIN SELECT name FROM scores WHERE score > 1")
    assert plan.column_names == ["explain_key", "explain_value"]


def test_a_query_larger_than_its_limits_says_which_flags_raise_them(table):
    sql = "SELECT count(DISTINCT md5(range::VARCHAR)) FROM range(3000000)"
    limits = Limits(memory=30 * 2**20, spill=2**20)
    with pytest.raises(QueryError, match=r"needs more memory or disk .*--memory and --spill"):
        list(table.stream(sql, limits=limits)[1])


def test_long_sql_is_shortened_in_errors(table):
    with pytest.raises(QueryError) as error:
        table.query("SELECT " + "x + " * 500 + "1")
    assert len(str(error.value)) < 500


def test_what_the_user_typed_begins_the_error(table):
    with pytest.raises(QueryError, match='^"--where skore > 1": Binder Error'):
        table.query("SELECT * FROM scores WHERE (skore > 1)", typed="--where skore > 1")


def test_a_stream_that_is_dropped_half_way_leaves_nothing_open(tmp_path):
    folder = write_table(str(tmp_path / "t"), {MODEL: make_rows(num=500)})
    for _ in range(3):
        schema, batches = ScoreTable(folder).stream("SELECT name FROM scores")
        assert schema.names == ["name"]
        assert next(batches).num_rows > 0
        batches.close()


def test_a_query_over_more_parts_than_are_kept_open_reads_them_all(tmp_path, monkeypatch):
    monkeypatch.setattr("ganad.scores.partfiles.NUM_KEPT", 2)
    table = ScoreTable(write_table(str(tmp_path / "t"), {MODEL: make_rows()}, part_rows=3))
    sql = "SELECT image_id, score FROM scores WHERE score IS NOT NULL ORDER BY image_id"
    expected = [(row["image_id"], row["score"]) for row in make_rows() if "error" not in row]
    assert [tuple(row.values()) for row in table.query(sql).to_pylist()] == expected


def test_threads_share_a_part_without_mixing_up_their_places(tmp_path):
    """DuckDB's threads seek and read through one handle; fsspec's own files would mix them up."""
    data = to_parquet(pa.table({"x": np.random.default_rng(0).random(50_000)}))
    storage.write_bytes(str(tmp_path / "part"), data)
    part = PartFiles({"p": PartFile(str(tmp_path / "part"), len(data))})._open("scores://p")
    wrong = []

    def work(seed):
        for offset in np.random.default_rng(seed).integers(0, len(data) - 64, 300):
            part.seek(int(offset))
            if part.read(64) != data[offset : offset + 64] or part.tell() != offset + 64:
                wrong.append(offset)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_counts_that_add_up_have_no_problem(table):
    assert table.check_counts() == []
    assert table.counts() == {MODEL: {"in": 60, "distinct": 60, "scored": 58, "failed": 2}}
    assert table.failures() == {"empty file": 2}
    (file,) = table.files_with_errors()
    assert file.uri == f"{table.uri}/model={MODEL}/part-000000.parquet"


def test_an_image_that_is_there_twice_is_told(tmp_path):
    rows = make_rows()
    folder = write_table(str(tmp_path / "t"), {MODEL: [*rows, rows[5]]})
    assert ScoreTable(folder).check_counts() == [
        f"{MODEL}: 61 rows for 60 images, so some image occurs twice"
    ]


def test_rows_that_are_missing_or_unclear_are_told(tmp_path):
    rows = make_rows(num_failed=0)
    rows[7] |= {"error": "but it has a score"}
    folder = write_table(str(tmp_path / "t"), {MODEL: rows, OTHER: make_rows()})
    storage.remove(f"{folder}/model={OTHER}/part-000001.parquet")
    problems = ScoreTable(folder).check_counts()
    assert "60 rows, of which 60 have a score and 1 an error" in problems[0]
    assert problems[-1] == (
        f"{OTHER}: 35 rows (33 scored, 2 failed) where its run counted 60 (58 scored, 2 failed)"
    )


def test_a_run_that_goes_on_is_told(tmp_path):
    folder = write_table(str(tmp_path / "t"), {MODEL: make_rows()}, run=False)
    table = ScoreTable(folder)
    assert table.last_run is None
    assert table.check_counts() == [
        f"{MODEL} has not finished: run the same ganad score again to continue"
    ]


def test_tables_on_s3_are_read_alike(s3, tmp_path):
    s3.put("tables/empty", b"")
    rows = {MODEL: make_rows(), OTHER: make_rows(seed=1)}
    remote = ScoreTable(write_table(s3.url("tables/t"), rows))
    local = ScoreTable(write_table(str(tmp_path / "t"), rows))
    assert remote.models == local.models
    assert remote.check_counts() == []
    sql = "SELECT * FROM scores WHERE score > 1 ORDER BY model, image_id"
    assert remote.query(sql).equals(local.query(sql))
    assert remote.files_with_errors()[0].uri.startswith("s3://tables/t/model=")
    with pytest.raises(QueryError, match="Permission Error"):
        remote.query("SELECT * FROM 's3://tables/t/run.json'")
    with pytest.raises(TableError, match="s3://tables/none does not exist"):
        ScoreTable("s3://tables/none")
    for part in remote.parts.values():
        storage.remove(part.uri)
    with pytest.raises(TableError, match=r"s3://tables/t cannot be read: .* no such object"):
        remote.query(sql)
