import xml.etree.ElementTree as ET

import numpy as np
import pytest

from ganad.evaluation.labelled import Labelled
from ganad.report.charts import Axis, Histogram, Uniformity
from ganad.report.figures import Source, chance_band, histogram, thresholds, uniformity
from ganad.scores.table import ScoreTable
from tests.ganad.scores.make_table import MODEL, make_rows, write_table

NAMESPACE = "{http://www.w3.org/2000/svg}"


def source(folder, rows, labelled=True):
    table = ScoreTable(write_table(str(folder), {MODEL: rows}))
    if labelled:
        return Source(Labelled(table).session, "labelled", MODEL)
    return Source(table.session(), "scores", MODEL)


def scored(rows):
    return [row for row in rows if row["score"] is not None]


def test_every_score_is_in_one_bar(tmp_path):
    rows = make_rows(num=200)
    chart = histogram(source(tmp_path / "t", rows), None)
    for kind, abnormal in (("abnormal", True), ("normal", False)):
        scores = [row["score"] for row in scored(rows) if row["abnormal"] is abnormal]
        np.testing.assert_array_equal(chart.counts[kind], np.histogram(scores, chart.edges)[0])
    assert chart.shares
    assert not chart.log_scores


def test_scores_of_many_magnitudes_are_drawn_on_a_logarithmic_scale(tmp_path):
    rows = make_rows(num=200, num_failed=0)
    for i, row in enumerate(rows):
        row["score"] = 10.0 ** (i / 50)
    chart = histogram(source(tmp_path / "t", rows, labelled=False), None)
    assert chart.log_scores
    assert chart.counts["all"].sum() == 200
    assert chart.edges[0] == pytest.approx(1)
    assert chart.edges[-1] == pytest.approx(10**3.98)
    assert chart.counts["all"].max() < 20  # evenly filled


def test_one_score_alone_and_none_at_all(tmp_path):
    rows = make_rows(num=3, num_failed=2)
    assert histogram(source(tmp_path / "t", rows), None).counts["normal"].sum() == 1
    rows = make_rows(num=2, num_failed=2)
    assert histogram(source(tmp_path / "u", rows, labelled=False), None) is None
    assert thresholds(source(tmp_path / "v", rows, labelled=False)) == []


def test_thresholds_say_what_the_table_says(tmp_path):
    rows = make_rows(num=300)
    found = thresholds(source(tmp_path / "t", rows))
    assert [one.alpha for one in found] == [0.05]  # 99 calibration images: no p below 0.01
    for kind, abnormal in (("abnormal", True), ("normal", False)):
        chosen = [row for row in scored(rows) if row["abnormal"] is abnormal]
        num = sum(row["p_value"] < 0.05 for row in chosen)
        assert found[0].flagged[kind] == (num, len(chosen))
    for row in scored(rows):
        assert (row["score"] > found[0].score) == (row["p_value"] < 0.05)


def test_uniformity_is_the_share_of_p_values(tmp_path):
    rows = make_rows(num=300)
    chart = uniformity(source(tmp_path / "t", rows), 99)
    p_values = np.array([row["p_value"] for row in scored(rows) if not row["abnormal"]])
    alpha, share = chart.groups["normal"]
    np.testing.assert_allclose(share, [np.mean(p_values <= a) for a in alpha])
    assert chart.lowest == pytest.approx(0.01)


def test_a_table_without_p_values_has_no_uniformity(tmp_path):
    rows = [row | {"p_value": None} for row in make_rows()]
    place = source(tmp_path / "t", rows)
    assert uniformity(place, None) is None
    assert thresholds(place) == []


@pytest.mark.parametrize("num", [40, 20_000])
def test_fresh_normals_stay_in_the_band_95_times_of_100(num):
    rng = np.random.default_rng(0)
    n = 60
    alpha, low, high = chance_band(n, num)
    inside = np.zeros(len(alpha))
    for _ in range(400):
        calibration = np.sort(rng.random(n))
        p_values = (1 + n - np.searchsorted(calibration, rng.random(num))) / (n + 1)
        share = np.searchsorted(np.sort(p_values), alpha + 1e-9) / num
        inside += (share >= low) & (share <= high)
    assert (inside / 400 > 0.91).all()
    if num > 10_000:  # shares of 40 images are too coarse for exactly 95
        assert (inside / 400 < 0.985).all()


def parsed(svg):
    root = ET.fromstring(str(svg).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))
    for path in root.iter(f"{NAMESPACE}path"):
        assert "nan" not in path.get("d")
        assert "inf" not in path.get("d")
    return root


def texts(root):
    return [element.text for element in root.iter(f"{NAMESPACE}text")]


def test_charts_are_sound_svg_with_the_threshold_in_it():
    chart = Histogram(
        np.linspace(-1, 1, 5),
        {"normal": np.array([0, 5, 3, 0]), "abnormal": np.array([0, 0, 0, 1])},
        log_scores=False,
        shares=True,
        threshold=0.25,
        threshold_name="p < 0.05 →",
    )
    root = parsed(chart.svg())
    assert "p < 0.05 →" in texts(root)
    assert len(list(root.iter(f"{NAMESPACE}path"))) == 2
    alone = Uniformity({"all": (np.array([1.0]), np.array([1.0]))}, 0.5)
    assert "share with p ≤ a" in texts(parsed(alone.svg()))


def test_axes_place_values_and_choose_round_ticks():
    axis = Axis(0.0, 10.0, 100, 200)
    assert [axis.place(value) for value in (-5, 0, 5, 10, 99)] == [100, 100, 150, 200, 200]
    assert axis.ticks() == [0, 2, 4, 6, 8, 10]
    log = Axis(0.001, 1.0, 300, 0, log=True)
    assert log.place(0.1) == pytest.approx(100)
    np.testing.assert_allclose(log.ticks(), [0.001, 0.01, 0.1, 1])
    np.testing.assert_allclose(Axis(0.2, 0.9, 0, 1, log=True).ticks(), [0.2, 0.4, 0.6, 0.8])
    assert len(Axis(1e-12, 1e12, 0, 1, log=True).ticks()) < 8
