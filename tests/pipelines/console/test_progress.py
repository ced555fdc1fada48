"""Progress in a log: plain lines with what is done, how fast, what is left, and what is wrong."""

import re
import time

import pytest

from pipelines.console import progress
from pipelines.console.progress import Meter, counted


def until(capsys: pytest.CaptureFixture[str], pattern: str) -> str:
    """What was said until a line matches; fails if none ever does."""
    said, deadline = "", time.monotonic() + 60
    while not re.search(pattern, said):
        assert time.monotonic() < deadline, said
        time.sleep(0.01)
        said += capsys.readouterr().err
    return said


def test_a_line_says_it_all(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    with Meter("scoring", 1_000_000, "images", already=400_000) as meter:
        meter._began -= 100  # as if it had run for so long
        meter.update(500_000, "3 failed: truncated")
    first, last = capsys.readouterr().err.splitlines()
    found = re.fullmatch(
        r"scoring: 500,000 of 1,000,000 images, ([\d,]+)/s, \d+ min \d+ s left, "
        r"3 failed: truncated",
        first,
    )
    assert found is not None, first
    assert 0 < int(found[1].replace(",", "")) <= 1000
    assert last.startswith("scoring: 500,000 of 1,000,000 images")


def test_lines_are_few(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 1e9)
    with Meter("scoring", 1000, "images") as meter:
        for done in range(1000):
            meter.update(done + 1)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("scoring: 1,000 of 1,000 images")


def test_a_job_that_waits_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "QUIET_S", 0.05)
    with Meter("scoring", 1000, "images") as meter:
        meter.update(10)
        said = until(capsys, "no progress for")
    assert "scoring: 10 of 1,000 images" in said


def test_a_failed_job_does_not_say_that_it_ended(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="x"), Meter("scoring", 10, "images"):
        raise ValueError("x")
    assert capsys.readouterr().err == ""


def test_a_count_without_an_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    with counted("listing", "images") as found:
        found(4096)
    assert capsys.readouterr().err == "listing: 4,096 images so far\n"


def test_a_total_that_may_grow(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    with Meter("scoring", 65_536, "images") as meter:
        meter._began -= 100
        meter.expect(131_072, open_ended=True)
        meter.update(12_000)
        meter.expect(140_000, open_ended=False)
    first, last = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"scoring: 12,000 of at least 131,072 images, \d+/s", first), first
    assert re.fullmatch(r"scoring: 12,000 of 140,000 images, \d+/s, \d+ min \d+ s left", last), last


def test_the_time_left_counts_down_while_nothing_is_reported(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    meter = Meter("scoring", 100, "images", already=20)
    assert meter.left is None
    now += 20
    meter.update(60)
    assert (meter.rate, meter.left) == (2, 20)
    now += 15
    meter.update(60)  # a look that finds nothing new
    assert (meter.rate, meter.left) == (2, 5)
    now += 10
    assert meter.left is None  # overdue: better none than one that climbs
    meter.update(90)
    assert meter.left == pytest.approx(10 / (70 / 45))
    meter.expect(200, open_ended=True)
    assert meter.left is None
