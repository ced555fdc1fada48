"""Workers, nodes, disks and servers that fail in the middle of a scoring job, all of them real. The
table must be the one that an undisturbed run makes."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ganad.errors import TableError
from ganad.scores.table import ScoreTable
from pipelines.passes.units import UNIT_ROWS
from tests.pipelines.processes import (
    family,
    finished,
    kill_when,
    parts,
    run,
    running,
    scores,
    start,
    wait_for,
    workers,
)
from tests.proxy import Mode, Proxy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

NUM = 500


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small grey images, and one that is none."""
    folder = tmp_path_factory.mktemp("faults") / "archive"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(NUM - 1):
        pixels = rng.integers(0, 256, (24, 24)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:05d}.png")
    (folder / "bad.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def model(archive: Path) -> str:
    """A model that is slow enough for a job to be caught at work."""
    some = archive.parent / "some"
    some.mkdir()
    for path in sorted(archive.iterdir())[:48]:
        shutil.copy(path, some)
    out = str(archive.parent / "model")
    large = ["--set", "image_size=64", "--set", "channels=1", "--set", "width=48"]
    run("train", "ganomaly", str(some), "--out", out, *large, "--set", "epochs=1", "--no-gpu")
    return out


@pytest.fixture(scope="module")
def undisturbed(model: str, archive: Path) -> dict[str, float]:
    """Name -> score."""
    table = archive.parent / "whole"
    run("score", model, str(archive), "--out", str(table), "--no-gpu")
    return scores(table, "name")


def check(table: Path, undisturbed: dict[str, float]) -> None:
    """The table equals the undisturbed one, and nothing else lies about."""
    found = scores(table, "name")
    assert len(found) == NUM
    assert found == undisturbed
    assert ScoreTable(str(table)).check_counts() == []
    assert ScoreTable(str(table)).failures() == {
        "not an image: neither JPEG, PNG, BMP, TIFF, WebP nor GIF": 1
    }
    assert not [path for path in table.rglob(".*") if path.is_file()]


def test_a_scoring_actor_dies(
    model: str, archive: Path, tmp_path: Path, undisturbed: dict[str, float]
) -> None:
    """Several times; meanwhile a reader sees whole parts only."""
    table = tmp_path / "table"
    seen = 0
    with running("score", model, str(archive), "--out", str(table), "--no-gpu") as driver:
        wait_for(lambda: parts(table), driver, "its first part")
        for num_parts in (1, 3):
            wait_for(lambda num=num_parts: len(parts(table)) >= num, driver, "further parts")
            actor = workers(driver.pid, b"Scorer")[0]
            os.kill(actor, signal.SIGKILL)
        while driver.poll() is None:
            seen = max(seen, read_whole_parts(table))
    assert seen > 0
    check(table, undisturbed)
    work = ScoreTable(str(table)).last_run.work  # type: ignore[union-attr]
    assert work["restarts"] >= 1


def read_whole_parts(table: Path) -> int:
    """What DuckDB sees of a table in the making: as many rows as whole parts have, none twice."""
    try:
        now = ScoreTable(str(table))
    except TableError:
        return 0
    sizes = {pq.read_metadata(file.uri).num_rows for file in now.parts.values()}
    assert max(sizes) <= UNIT_ROWS
    assert len(sizes) <= 2  # the last part is smaller
    (row,) = now.query(
        "SELECT count(*) AS num, count(DISTINCT image_id) AS ids FROM scores"
    ).to_pylist()
    assert (
        row["num"]
        == row["ids"]
        == sum(pq.read_metadata(f.uri).num_rows for f in now.parts.values())
    )
    return int(row["num"])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own with room for a part or two."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no right to mount a small disk")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_the_disk_is_full(
    model: str, archive: Path, small_disk: Path, undisturbed: dict[str, float]
) -> None:
    table = small_disk / "table"
    arguments = ["score", model, str(archive), "--out", str(table), "--no-gpu"]
    said = run(*arguments, status=1)
    assert "the disk is full" in said
    assert "Traceback" not in said
    assert not [path for path in table.rglob(".*") if path.is_file()]
    assert scores(table, "name").items() <= undisturbed.items()
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    run(*arguments)
    check(table, undisturbed)


CLUSTER = """
import sys, time
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={HEAD})
workers = [cluster.add_node(**node) for node in {NODES}]
raylets = [node.all_processes["raylet"][0].process.pid for node in workers]
print(cluster.address, *raylets, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, request: Any) -> Iterator[list[int]]:
    """A Ray cluster of several nodes, in processes of its own; the raylets of the worker nodes."""
    head, nodes = request.param
    program = CLUSTER.replace("{HEAD}", repr(head)).replace("{NODES}", repr(nodes))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    keeper = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    lines = (line.split() for line in keeper.stdout)
    address, *raylets = next(words for words in lines if words and ":" in words[0])
    monkeypatch.setenv("RAY_ADDRESS", address)
    yield [keeper.pid, *map(int, raylets)]
    members = family(keeper.pid)
    keeper.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        keeper.wait(60)
    for pid in [keeper.pid, *members]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    keeper.wait()
    keeper.stdout.close()


STORE = 100 * 2**20
HEAD = {"num_cpus": 0, "object_store_memory": STORE}
NODE = {"num_cpus": 1, "object_store_memory": STORE}


@pytest.mark.parametrize("cluster", [(HEAD, [NODE, NODE])], indirect=True)
def test_a_node_dies(
    cluster: list[int],
    model: str,
    archive: Path,
    tmp_path: Path,
    undisturbed: dict[str, float],
) -> None:
    table = tmp_path / "table"
    with running("score", model, str(archive), "--out", str(table), "--no-gpu") as driver:
        wait_for(lambda: parts(table), driver, "its first part")
        _, doomed, _ = cluster
        members = family(doomed)
        for pid in [doomed, *members]:
            os.kill(pid, signal.SIGKILL)
    check(table, undisturbed)


GPU_NODE = {"num_cpus": 2, "num_gpus": 1, "object_store_memory": STORE}


@pytest.mark.parametrize("cluster", [(GPU_NODE, [])], indirect=True)
def test_a_decoding_worker_dies(
    cluster: list[int],
    model: str,
    archive: Path,
    tmp_path: Path,
    undisturbed: dict[str, float],
) -> None:
    """With a GPU decoding is a stage of its own; the GPU is one by name only, the work is real."""
    table = tmp_path / "table"
    (keeper,) = cluster
    with running("score", model, str(archive), "--out", str(table), "--gpu") as driver:

        def decoding() -> list[int]:
            return workers(keeper, b"decode_unit")

        wait_for(decoding, driver, "decoding")
        os.kill(decoding()[0], signal.SIGKILL)
        wait_for(lambda: parts(table), driver, "its first part")
    check(table, undisturbed)


@pytest.fixture
def proxied(s3: Any, archive: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The archive on S3, behind a proxy."""
    if not (s3.root / "faults").exists():
        shutil.copytree(archive, s3.root / "faults" / "archive")
    proxy = Proxy(s3.endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    yield proxy
    proxy.close()


@pytest.mark.parametrize(
    ("mode", "seconds"), [("busy", 12.0), ("cut", 12.0), ("stall", 30.0), ("gone", 12.0)]
)
def test_s3_misbehaves_for_a_while(
    mode: Mode,
    seconds: float,
    model: str,
    proxied: Proxy,
    s3: Any,
    undisturbed: dict[str, float],
) -> None:
    """The job waits, and no image is blamed."""
    place = f"faults/table-{mode}"
    table = s3.root / place
    source = s3.url("faults/archive")
    with running("score", model, source, "--out", s3.url(place), "--no-gpu") as driver:
        wait_for(lambda: parts(table), driver, "its first part")
        proxied.mode = mode
        time.sleep(seconds)
        proxied.mode = "pass"
    assert proxied.num_spoilt > 0
    check(table, undisturbed)


def test_s3_stays_away(model: str, proxied: Proxy, s3: Any, undisturbed: dict[str, float]) -> None:
    """Patience ends: the job stops in words, and the same command finishes it later."""
    arguments = [
        "score",
        model,
        s3.url("faults/archive"),
        "--out",
        s3.url("faults/away"),
        "--no-gpu",
    ]
    table = s3.root / "faults" / "away"
    driver = start(*arguments, GANAD_PATIENCE_S="3")
    try:
        wait_for(lambda: parts(table), driver, "its first part")
        proxied.mode = "gone"
        assert driver.wait(1800) == 1
    finally:
        driver.kill()
        driver.wait()
    assert not finished(table)
    assert scores(table, "name").items() <= undisturbed.items()
    said = run(*arguments, status=1, GANAD_PATIENCE_S="3")
    # A connection that is closed at once looks like either, as the moment has it.
    assert re.search("cannot connect to 127.0.0.1|the connection broke off", said)
    proxied.mode = "pass"
    run(*arguments)
    check(table, undisturbed)


def test_the_driver_dies_while_the_archive_grows(
    model: str, archive: Path, tmp_path: Path, undisturbed: dict[str, float]
) -> None:
    some, table = tmp_path / "archive", tmp_path / "table"
    some.mkdir()
    names = sorted(path.name for path in archive.iterdir())
    for name in names[::2]:
        shutil.copy(archive / name, some)
    arguments = ["score", model, str(some), "--out", str(table), "--no-gpu"]
    kill_when(lambda _: bool(parts(table)), *arguments)
    for name in names[1::2]:
        shutil.copy(archive / name, some)
    run(*arguments)
    check(table, undisturbed)
