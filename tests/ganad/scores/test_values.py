"""Every type of DuckDB as Python values."""

from decimal import Decimal

import duckdb
import pytest

from ganad.scores.values import exact


@pytest.fixture
def rows():
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")

    def rows(sql):
        table = exact(connection.sql(sql)).to_arrow_reader(1000).read_all()
        return table.to_pylist(maps_as_pydicts="strict")

    return rows


def test_every_type_that_duckdb_knows_becomes_python_values(rows):
    lowest, highest, null = rows("FROM test_all_types()")
    assert set(null.values()) == {None}
    assert (lowest["date"], highest["timestamp"]) == (
        "5877642-06-25 (BC)",
        "294247-01-10 04:00:54.775806",
    )
    assert highest["time"] == "24:00:00"
    assert highest["uhugeint"] == "340282366920938463463374607431768211455"
    assert highest["hugeint"] == Decimal("170141183460469231731687303715884105727")
    assert highest["interval"] == "83 years 3 months 999 days 00:16:39.999999"
    assert highest["date_array"] == ["1970-01-01", "infinity", "-infinity", None, "2022-05-12"]
    assert highest["timestamp_ns"] == "2262-04-11 23:47:16.854775806"
    assert highest["map"] == {"key1": "🦆🦆🦆🦆🦆🦆", "key2": "goose"}
    assert highest["union"] == "5"


def test_plain_types_are_left_as_they_are(rows):
    assert rows("SELECT 1 AS a, 'x' AS b, 1.5::DOUBLE AS c, [1, NULL] AS d, 'y'::BLOB AS e") == [
        {"a": 1, "b": "x", "c": 1.5, "d": [1, None], "e": b"y"}
    ]


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("TIMESTAMPTZ '2025-01-02 03:04:05.5+00'", "2025-01-02T03:04:05.5+00:00"),
        ("TIMESTAMP '2025-01-02 03:04:05'", "2025-01-02T03:04:05"),
        ("'infinity'::TIMESTAMP", "infinity"),
        ("{'a b': DATE '2025-01-02', 'c': 1}", {"a b": "2025-01-02", "c": 1}),
        ("MAP {DATE '2025-01-02': 1}", {"2025-01-02": 1}),
        ("MAP {[1]: 2}", "{[1]=2}"),
        ("[INTERVAL 3 MONTH]", ["3 months"]),
        ("[[TIME '10:00']]::TIME[1][1]", [["10:00:00"]]),
    ],
)
def test_text_stands_for_what_python_cannot_hold(rows, sql, value):
    assert rows(f'SELECT {sql} AS "a ""quoted"" name"') == [{'a "quoted" name': value}]


def test_columns_of_one_name_keep_their_places(rows):
    found = exact(duckdb.sql("SELECT DATE '2025-01-02' AS a, 1 AS a")).fetchall()
    assert found == [("2025-01-02", 1)]
