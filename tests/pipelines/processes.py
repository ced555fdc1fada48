"""Real ganad processes that are watched, killed and read after."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

PATIENCE_S = 1200


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pipelines", *arguments]


def run(*arguments: str, status: int = 0, **environment: str) -> str:
    """Run a command to its end; returns what it said."""
    result = subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        timeout=1800,
        env={**os.environ, **environment},
    )
    assert result.returncode == status, result.stderr
    return result.stderr


def start(
    *arguments: str, stderr: IO[str] | int = subprocess.DEVNULL, **environment: str
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command(*arguments),
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        env={**os.environ, **environment},
    )


@contextmanager
def running(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command at work; it must end well by itself, and is killed if the test fails before."""
    with tempfile.TemporaryFile("w+") as said:
        driver = start(*arguments, stderr=said, **environment)
        try:
            yield driver
            if driver.wait(1800) != 0:
                said.seek(0)
                raise AssertionError(said.read())
        finally:
            driver.kill()
            driver.wait()


def wait_for(condition: Callable[[], object], driver: subprocess.Popen[bytes], what: str) -> None:
    """Wait until the condition holds, while the driver is at work."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert driver.poll() is None, f"the job ended before {what}"
        assert time.monotonic() < deadline, f"the job did not get as far as {what}"
        time.sleep(0.02)


def kill_when(condition: Callable[[int], bool], *arguments: str, after_s: float = 0.0) -> None:
    """Start a command, wait until the condition holds for the driver's process id, and kill the
    driver with no chance to tidy up."""
    driver = start(*arguments)
    wait_for(lambda: condition(driver.pid), driver, "it could be killed")
    time.sleep(after_s)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()


def parts(table: Path) -> list[Path]:
    """The finished parts of a table."""
    return sorted(table.glob("model=*/*.parquet"))


def scores(table: Path, key: str = "image_id") -> dict[str, float]:
    """image_id or another column -> score; fails on an image that is there twice."""
    nothing = pa.table({key: pa.array([], pa.string()), "score": pa.array([], pa.float64())})
    found = [
        pq.read_table(path, columns=[key, "score"], partitioning=None) for path in parts(table)
    ]
    rows = pa.concat_tables([nothing, *(one.replace_schema_metadata() for one in found)])
    keys = rows[key].to_pylist()
    assert len(keys) == len(set(keys))
    return dict(zip(keys, rows["score"].to_pylist(), strict=True))


def finished(table: Path) -> bool:
    """Whether the run of every model has finished."""
    found = [json.loads(path.read_text()) for path in table.glob("_runs/[!.]*.json")]
    return bool(found) and all(run["finished_at"] for run in found)


def family(driver: int) -> set[int]:
    """The process's descendants: Ray's daemons and their workers."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                # pid (name) state parent ...; the name may hold spaces.
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(folder.name)] = int(fields[1])
    found = {driver}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {driver}


def command_line(pid: int) -> bytes:
    """Empty for a process that is gone or only waits for its parent to notice."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def workers(driver: int, name: bytes) -> list[int]:
    """Ray's workers below the driver whose title has the name in it: they are at that work."""
    found = ((pid, command_line(pid)) for pid in sorted(family(driver)))
    return [pid for pid, line in found if line.startswith(b"ray::") and name in line]
