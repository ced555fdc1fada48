"""The course of a run in a bounded number of points."""

from ganad.training.record import MAX_POINTS, Curve


def test_points_stay_few_and_evenly_spaced() -> None:
    curve = Curve()
    for step in range(25, 25 * 5000, 25):
        curve.add(step, {"loss": float(step)})
        curve = Curve(curve.points)  # as after a resume
    steps = [point["step"] for point in curve.points]
    assert MAX_POINTS / 3 < len(steps) <= MAX_POINTS
    assert len({after - before for before, after in zip(steps, steps[1:], strict=False)}) == 1
    assert steps[0] == 25
    assert steps[-1] > 25 * 4900


def test_a_short_run_keeps_all() -> None:
    curve = Curve()
    for step in (11, 22, 25, 33):
        curve.add(step, {"loss": 1.0})
    assert [point["step"] for point in curve.points] == [11, 22, 33]
