"""ganad compare: what is written, and the exit status for cron."""

import csv
import io
import json

import pytest

from ganad.errors import ConfigError
from pipelines.cli.compare import BEYOND, compare
from tests.ganad.scores.make_table import MODEL, make_rows, write_table


@pytest.fixture
def tables(tmp_path):
    """Two nights, the second with scores that are one higher."""
    later = [
        row | {"score": row["score"] and row["score"] + 1} for row in make_rows(num=300, seed=1)
    ]
    return (
        write_table(str(tmp_path / "a"), {MODEL: make_rows(num=300)}),
        write_table(str(tmp_path / "b"), {MODEL: later}),
    )


def answer(tables, **options):
    out = io.StringIO()
    status = compare(*tables, **options, out=out)
    return status, out.getvalue()


def test_the_status_is_for_cron(tables, capsys):
    assert answer(tables)[0] == 0
    assert answer(tables, bound=0.9)[0] == 0
    assert capsys.readouterr().err == ""
    assert answer(tables, bound=0.1)[0] == BEYOND == 3
    assert f"{MODEL}, all images: the distance of the scores is 0." in capsys.readouterr().err
    assert answer((tables[0], tables[0]), bound=0)[0] == 0
    with pytest.raises(ConfigError, match="^--bound 5 is not a distance"):
        answer(tables, bound=5)


def test_people_see_both_numbers_beside_each_other(tables):
    _, text = answer(tables)
    line = next(line for line in text.splitlines() if "(all)" in line)
    assert line.split()[:5] == [MODEL, "(all)", "298", "→", "298"]
    assert "hole" in text
    assert "Kolmogorov" in text


def test_programs_see_every_figure(tables):
    rows = json.loads(answer(tables, format="json")[1])
    assert rows[0]["folder"] is None
    assert rows[0]["num_first"] == rows[0]["num_second"] == 298
    assert rows[0]["score_50_percent_second"] - rows[0]["score_50_percent_first"] == pytest.approx(
        1, abs=0.5
    )
    assert list(rows[0]) == next(csv.reader(io.StringIO(answer(tables, format="csv")[1])))
