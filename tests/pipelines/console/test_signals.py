"""Commands that only read end within a second of a signal, whatever they are doing."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from tests.ganad.scores.make_table import small_table
from tests.pipelines.processes import command

GROWING = "SELECT count(*) FROM scores a, scores b, scores c, scores d, scores e, scores f"
PROGRAM = """
import hashlib, sys, time
from pipelines.console.signals import Stopped, end, stops_promptly

@stops_promptly
def work():
    print("at work", flush=True)
    {work}

try:
    work()
except Stopped as stopped:
    end(stopped)
"""
NATIVE = "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"
TRANSLATED = """
    try:
        time.sleep(100)
    except BaseException:
        raise RuntimeError("Query interrupted")
"""
ANOTHER_EXIT = TRANSLATED.replace('RuntimeError("Query interrupted")', "SystemExit(1)")


@contextmanager
def started(arguments, **environment):
    process = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **environment}
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def stop(process, number):
    """Seconds until the process ended."""
    began = time.monotonic()
    process.send_signal(number)
    process.wait(60)
    return time.monotonic() - began


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("work", ["time.sleep(100)", NATIVE, TRANSLATED, ANOTHER_EXIT])
def test_a_signal_ends_the_work_at_once(work, number):
    program = PROGRAM.format(work=work)
    with started([sys.executable, "-c", program]) as process:
        assert process.stdout.readline() == b"at work\n"
        time.sleep(0.1)
        assert stop(process, number) < 5  # under a second on a machine that is free
        assert process.returncode == 128 + number
        assert process.stderr.read() == b"stopped\n"


def test_a_query_that_grows_ends_and_leaves_no_spill(tmp_path):
    table = small_table(tmp_path, num=1000)
    spill = tmp_path / "spill"
    spill.mkdir()
    query = command("query", table, GROWING + " WHERE a.score * b.score > f.score")
    with started(query, TMPDIR=str(spill)) as process:
        deadline = time.monotonic() + 60
        while not list(spill.glob("ganad-spill-*/lock")) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        assert stop(process, signal.SIGTERM) < 5
        assert process.returncode == 143
        assert process.stderr.read() == b"stopped\n"
    assert list(spill.iterdir()) == []


def test_handlers_are_as_before_afterwards():
    from pipelines.console.signals import prompt_end

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with prompt_end():
        assert signal.getsignal(signal.SIGTERM) not in before
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert signal.set_wakeup_fd(-1) == -1
