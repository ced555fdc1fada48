"""Jobs on the cluster of the tests: submitted, watched, waited for."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

PATIENCE_S = 600


@contextmanager
def nodes(cluster: Any, num: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """So many worker nodes of one core, for the while."""
    there = [cluster.add() for _ in range(num)]
    try:
        yield there
    finally:
        for node in there:
            if node.poll() is None:
                cluster.lose(node)


def wait_for(condition: Callable[[], bool], job: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert job.poll() is None, f"the job has ended already: {job.communicate()}"
        assert time.monotonic() < deadline, "the job does not get as far as to be disturbed"
        time.sleep(0.05)


@contextmanager
def running(cluster: Any, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A submitted job whose log is followed."""
    command = cluster.command("submit", "--", *arguments)
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env=cluster.user(), stdout=pipe, stderr=pipe, text=True
    ) as follower:
        try:
            yield follower
        finally:
            if follower.poll() is None:
                follower.kill()


def finished(job: subprocess.Popen[str]) -> str:
    """The log of a job that ends well."""
    log, said = job.communicate(timeout=PATIENCE_S)
    assert job.returncode == 0, log + said
    return log
