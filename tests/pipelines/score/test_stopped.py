"""ganad score that is stopped by a signal: a sentence and a status at once, and nothing is left."""

import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests.pipelines.processes import command, command_line, family, parts, scores, wait_for

LISTEN = "0A"
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


@pytest.fixture
def folder() -> object:
    """For temporary files, short enough for Ray's sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="t-") as place:
        yield Path(place)


def listening(pids: set[int]) -> set[str]:
    """Addresses, in hexadecimal, at which these processes accept connections."""
    sockets = {}
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == LISTEN:
                sockets[f"socket:[{words[9]}]"] = words[1].partition(":")[0]
    found = set()
    for pid in pids:
        try:
            links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:
            continue
        found |= {sockets[link] for link in links if link in sockets}
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_at_once_and_leaves_no_process_and_no_session_folder(
    number: signal.Signals, model: str, image_folder: Path, tmp_path: Path, folder: Path
) -> None:
    table, archive = tmp_path / "table", tmp_path / "archive"
    archive.mkdir()
    image = (image_folder / "test" / "good" / "000.png").read_bytes()
    for name in range(3000):
        (archive / f"{name:04d}.png").write_bytes(image)
    arguments = ["score", model, str(archive), "--out", str(table), "--no-gpu"]
    with (tmp_path / "said").open("w") as said:
        driver = subprocess.Popen(
            command(*arguments), stderr=said, env={**os.environ, "TMPDIR": str(folder)}
        )
    try:
        wait_for(lambda: parts(table), driver, "its first part")
        processes = family(driver.pid)
        assert any(b"raylet" in command_line(pid) for pid in processes)
        assert listening({driver.pid, *processes}) <= LOOPBACK
        began = time.monotonic()
        driver.send_signal(number)
        assert driver.wait(60) == 128 + number
        seconds = time.monotonic() - began
    finally:
        driver.kill()
        driver.wait()
    assert (tmp_path / "said").read_text().splitlines()[-1] == (
        "stopped; run the same command again to continue"
    )
    assert seconds < 10  # under three on a machine that is free
    deadline = time.monotonic() + 60
    while (left := [pid for pid in processes if command_line(pid)]) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left
    assert list(folder.iterdir()) == []
    assert len(scores(table)) < 3000
    done = subprocess.run(
        command(*arguments),
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert len(scores(table)) == 3000
    assert list(folder.iterdir()) == []
