"""Two tables beside each other."""

import numpy as np
import pytest
from scipy import stats

from ganad.errors import TableError
from ganad.evaluation.compare import compare, sentences
from ganad.scores.table import ScoreTable
from tests.ganad.scores.make_table import MODEL, OTHER, make_rows, write_table


def night(folder, seed, shift=0.0, num=600, models=(MODEL,), **changes):
    """Rows of normal images in two folders; shift: of the scores in the second one."""
    rows = [row for row in make_rows(num=num, seed=seed, num_failed=1) if row["label"] == "good"]
    for number, row in enumerate(rows):
        camera = "left" if number % 2 else "right"
        row |= {"name": f"line/{camera}/{number}.png", **changes}
        if row["score"] is not None and camera == "left":
            row["score"] = round(row["score"] + shift, 1)  # with ties
    return ScoreTable(write_table(str(folder), {model: rows for model in models}))


def scores(table, folder=""):
    found = table.query(
        f"SELECT score FROM scores WHERE score IS NOT NULL AND starts_with(name, 'line/{folder}')"
    )
    return found["score"].to_numpy()


def test_distances_are_those_of_kolmogorov_and_smirnov(tmp_path):
    first, second = night(tmp_path / "a", 0), night(tmp_path / "b", 1, shift=0.4, num=450)
    whole, left, right = compare(first, second).comparisons
    assert [one.folder for one in (whole, left, right)] == [None, "line/left", "line/right"]
    for one, folder in ((whole, ""), (left, "left"), (right, "right")):
        both = scores(first, folder), scores(second, folder)
        assert one.distance == pytest.approx(stats.ks_2samp(*both).statistic)
        assert one.chance == pytest.approx(stats.ks_2samp(*both, method="asymp").pvalue)
        assert (one.first.num, one.second.num) == tuple(map(len, both))
        assert one.first.quantiles == pytest.approx(np.quantile(both[0], [0.5, 0.9, 0.99]))


def test_only_what_moved_is_beyond_the_bound(tmp_path):
    first, second = night(tmp_path / "a", 0), night(tmp_path / "b", 1, shift=1.5)
    found = compare(first, second).beyond(0.1)
    assert [one.folder for one in found] == [None, "line/left"]
    (_, text) = sentences(found, 0.1)
    assert text.startswith(f"{MODEL}, folder 'line/left': the distance of the scores is 0.")


def test_chance_is_no_difference(tmp_path):
    first, second = night(tmp_path / "a", 0, num=90), night(tmp_path / "b", 1, num=90)
    result = compare(first, second)
    assert max(one.distance for one in result.comparisons) > 0.05
    assert result.beyond(0.05) == []


def test_shares_that_are_flagged(tmp_path):
    first = night(tmp_path / "a", 0, p_value=0.01)
    second = night(tmp_path / "b", 0, p_value=None)
    whole = compare(first, second).comparisons[0]
    assert (whole.first.share_flagged, whole.second.share_flagged) == (1, None)
    assert (whole.distance, whole.chance) == (0, 1)


def test_models_and_folders_of_one_table_alone_are_told(tmp_path):
    first = night(tmp_path / "a", 0, models=(MODEL, OTHER), num=60)
    second = night(tmp_path / "b", 1, num=60, name="other/1.png")
    result = compare(first, second)
    assert [one.folder for one in result.comparisons] == [None]
    assert f"{OTHER} was not compared, because only {first.typed} has it" in result.notes
    assert any("no folder has 20 images in both tables" in note for note in result.notes)


def test_tables_without_a_common_model_are_refused(tmp_path):
    first, second = night(tmp_path / "a", 0), night(tmp_path / "b", 1, models=(OTHER,))
    with pytest.raises(TableError, match="have no model in common"):
        compare(first, second)
