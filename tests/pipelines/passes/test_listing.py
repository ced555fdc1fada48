"""Scoring begins while the archive is still being listed, and ends with the table of a listing that
came first."""

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ganad.archive import listing, parts, tars
from ganad.archive.manifest import Part, is_manifest, open_manifest
from ganad.errors import ArchiveError, Mismatch
from ganad.scores.table import ScoreTable
from pipelines.cli.show_table import lines_of_table
from pipelines.passes import listing as background
from pipelines.passes.listing import BackgroundListing
from pipelines.passes.units import Unit, UnitSize, cut
from pipelines.score.run import score
from tests.pipelines.processes import finished, run, wait_for

pytestmark = pytest.mark.usefixtures("ray_cluster")

NUM_BEFORE = 20
"""Files that are listed before something happens; the first part has 16 of them."""


@pytest.fixture
def archive(image_folder: Path, tmp_path: Path) -> Path:
    """56 images."""
    shutil.copytree(image_folder, tmp_path / "archive")
    return tmp_path / "archive"


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "ROWS_PER_PART", 16)
    monkeypatch.setattr(parts, "ROWS_PER_GROUP", 4)
    monkeypatch.setattr(background, "GRACE_S", 0.0)


def in_the_middle(patch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """Have something happen in the middle of a listing."""
    walk = listing.walk

    def walking(*arguments: Any) -> Iterator[Any]:
        for number, file in enumerate(walk(*arguments)):
            if number == NUM_BEFORE:
                happens()
            yield file

    patch.setattr(listing, "walk", walking)


def scores(table: Path) -> dict[str, float]:
    rows = ScoreTable(str(table)).query("SELECT name, score FROM scores").to_pylist()
    assert len(rows) == len({row["name"] for row in rows})
    return {row["name"]: row["score"] for row in rows}


def files(table: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in table.glob("model=*/*.parquet")}


def cut_off(model: str, archive: Path, table: Path) -> None:
    """Score until the listing fails, which it does when a first unit is scored."""

    def fail() -> None:
        deadline = time.monotonic() + 300
        while not files(table) and time.monotonic() < deadline:
            time.sleep(0.05)
        raise ArchiveError("the disk is gone: bring it back")

    with pytest.MonkeyPatch.context() as patch:
        in_the_middle(patch, fail)
        with pytest.raises(ArchiveError, match=r"archive: the disk is gone: bring it back"):
            score([model], [str(archive)], str(table), gpu=False)


def test_scoring_begins_before_the_listing_ends(
    model: str,
    archive: Path,
    tmp_path: Path,
    small_parts: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table, whole, seen = tmp_path / "table", tmp_path / "whole", {}

    def wait_for_scores() -> None:
        deadline = time.monotonic() + 300
        while not files(table) and time.monotonic() < deadline:
            time.sleep(0.05)
        seen["files"] = len(files(table))
        seen["job"] = (table / "_job.json").read_text()
        seen["show"] = dict(lines_of_table(ScoreTable(str(table))))["state"]

    with monkeypatch.context() as patch:
        in_the_middle(patch, wait_for_scores)
        (run,) = score([model], [str(archive)], str(table), gpu=False).values()
    assert seen["files"] >= 1
    assert seen["show"].startswith("unfinished: 16 images so far, listing continues")
    assert "of at least" in capsys.readouterr().err
    assert [part.num_rows for part in open_manifest(str(table / "_manifest")).parts] == [
        *(16, 16, 16, 8)
    ]
    assert [run.counts[key] for key in ("in", "distinct", "failed")] == [56, 56, 0]
    assert run.timings["images_scored_now"] == 56
    assert (table / "_job.json").read_text() == seen["job"]  # it is written once
    monkeypatch.undo()
    score([model], [str(archive)], str(whole), gpu=False)
    assert scores(table) == scores(whole)
    (run,) = score([model], [str(archive)], str(table), gpu=False).values()
    assert run.timings["images_scored_now"] == 0


def test_shards_are_scored_before_all_are_listed(
    model: str,
    archive: Path,
    tmp_path: Path,
    small_parts: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = sorted(archive.rglob("*.png"))
    (tmp_path / "shards").mkdir()
    for number in range(8):
        with tarfile.open(tmp_path / "shards" / f"{number}.tar", "w") as tar:
            for image in images[number::8]:
                tar.add(image, f"{images.index(image)}.png")
    table, seen = tmp_path / "table", []
    members = tars.members

    def waits(uri: str) -> Iterator[Any]:
        deadline = time.monotonic() + 300
        while uri.endswith("/7.tar") and not files(table) and time.monotonic() < deadline:
            time.sleep(0.05)
        if uri.endswith("/7.tar"):
            seen.append(len(files(table)))
        return members(uri)

    monkeypatch.setattr(tars, "members", waits)
    (run,) = score([model], [f"{tmp_path}/shards/*.tar"], str(table), gpu=False).values()
    assert seen[0] >= 1
    assert [run.counts[key] for key in ("in", "distinct", "failed")] == [len(images)] * 2 + [0]


def test_a_small_archive_is_listed_first(
    model: str, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    score([model], [str(archive)], str(tmp_path / "table"), gpu=False)
    said = capsys.readouterr().err
    assert "indexed 56 images" in said
    assert "scoring: 56 of 56 images" in said
    assert said.count("scoring:") == 1


def test_a_listing_that_fails_ends_the_command_and_the_next_goes_on(
    model: str, archive: Path, image_folder: Path, tmp_path: Path, small_parts: None
) -> None:
    table, whole = tmp_path / "table", tmp_path / "whole"
    cut_off(model, archive, table)
    before, scored = files(table), scores(table)
    assert len(scored) == 16
    assert not finished(table)
    shutil.copytree(image_folder / "test" / "crack", archive / "aaa")  # sorts before all others
    (run,) = score([model], [str(archive)], str(table), gpu=False).values()
    assert run.timings["images_scored_now"] == 56 + 8 - 16
    assert {path: when for path, when in files(table).items() if path in before} == before
    score([model], [str(archive)], str(whole), gpu=False)
    assert scores(table) == scores(whole)
    assert len(scores(table)) == 56 + 8
    assert ScoreTable(str(table)).check_counts() == []


def test_other_work_is_refused_before_the_listing_has_ended(
    model: str, archive: Path, image_folder: Path, tmp_path: Path, small_parts: None
) -> None:
    table = tmp_path / "table"
    cut_off(model, archive, table)
    with pytest.raises(Mismatch, match=r"its source was .*archive\): give a fresh --out"):
        score([model], [str(image_folder)], str(table), gpu=False)
    (folder,) = table.glob("model=*")
    folder.rename(table / "model=another-0123456789ab")
    shutil.rmtree(table / "_runs")
    with pytest.raises(Mismatch, match=r"holds unfinished work of another-.*fresh --out"):
        score([model], [str(archive)], str(table), gpu=False)
    (table / "model=another-0123456789ab").rename(folder)
    shutil.rmtree(table / "_manifest")  # a new listing may list other images in these places
    with pytest.raises(Mismatch, match=r"its manifest was \w{16}, now it is \w{16}\): give"):
        score([model], [str(archive)], str(table), gpu=False)


DRIVER = """
import sys, time
from ganad.archive import listing, parts
from pipelines.cli.app import main
from pipelines.passes import listing as background

parts.ROWS_PER_PART, parts.ROWS_PER_GROUP, background.GRACE_S = 16, 4, 0.0
walk = listing.walk

def walking(*arguments):
    for number, file in enumerate(walk(*arguments)):
        if number == 40:
            time.sleep(3600)
        yield file

listing.walk = walking
main()
"""


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_job_that_is_ended_while_it_lists_goes_on(
    how: signal.Signals, model: str, archive: Path, image_folder: Path, tmp_path: Path
) -> None:
    table, whole = tmp_path / "table", tmp_path / "whole"
    arguments = ["score", model, str(archive), "--no-gpu", "--out"]
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, *arguments, str(table)],
        env={**os.environ},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: len(files(table)) >= 2, driver, "two units were scored")
        driver.send_signal(how)
        assert driver.wait(120) != 0  # Ctrl-C does not wait for the listing
    finally:
        driver.kill()
        driver.wait()
    scored = scores(table)
    assert len(scored) == 32
    shutil.copytree(image_folder / "test" / "crack", archive / "aaa")  # sorts before all others
    run(*arguments, str(table))
    run(*arguments, str(whole))
    assert scores(table) == scores(whole)
    assert {name: scores(table)[name] for name in scored} == scored
    assert len(scores(table)) == 56 + 8


def test_units_of_parts_that_come_one_by_one_are_those_of_all() -> None:
    whole = [Part(f"part-{number}", 10 + number) for number in range(4)]
    units: list[Unit] = []
    for part in whole:
        units += cut([part], UnitSize(4), len(units))
    assert units == cut(whole, UnitSize(4))
    assert [unit.number for unit in units] == list(range(len(units)))


def test_units_grow_with_the_archive_and_stay_as_they_are_when_it_grows() -> None:
    size, parts = UnitSize(16, 1000), [Part(f"part-{number}", 65_536) for number in range(20)]
    whole = cut(parts, size)
    sizes = [unit.num for unit in whole]
    assert sizes[:8192] == [16] * 8192  # to 4,096 × 32 rows
    assert sizes[8192:12288] == [32] * 4096  # to 4,096 × 64 rows
    assert max(sizes) == 256
    assert sum(sizes) == 20 * 65_536
    assert [unit.number for unit in whole] == list(range(len(whole)))
    units: list[Unit] = []
    for number, part in enumerate(parts):
        units += cut([part], size, len(units), number * 65_536)
    assert units == whole
    # A table of an earlier version goes on with the units that it was begun with.
    assert {unit.num for unit in cut(parts, UnitSize(16))} == {16}


@pytest.mark.parametrize(("images", "files"), [(10**4, 15), (10**6, 1480), (10**9, 46_631)])
def test_a_billion_images_are_not_a_million_files(images: int, files: int) -> None:
    size, num, before = UnitSize(682, 65_536), 0, 0
    while before < images:
        rest = min(65_536 - before % 65_536, images - before)  # to the end of the part
        before += min(size.at(before), rest)
        num += 1
    assert num == pytest.approx(files, rel=0.1)


def test_a_listing_that_is_not_wanted_any_more_stops(
    archive: Path, tmp_path: Path, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    going = threading.Event()
    in_the_middle(monkeypatch, lambda: going.wait(60))
    with BackgroundListing([str(archive)], str(tmp_path / "manifest"), "table") as begun:
        begun.wait_for_start()
        assert begun.manifest is None
        going.set()
        begun._cancelled.set()
        assert begun._thread is not None
        begun._thread.join(60)
        assert not begun._thread.is_alive()
    assert not is_manifest(str(tmp_path / "manifest"))
    with BackgroundListing([str(archive)], str(tmp_path / "manifest"), "table") as again:
        assert again.wait_for_end().parts[0] == begun.parts[0]
    assert again.wait_for_end().num_images == 56
