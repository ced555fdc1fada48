"""A standard output that is full, closed or too narrow for a character."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from ganad.errors import OutputError
from pipelines.console.output import write_csv, write_table
from pipelines.console.stdout import checked_stdout

try:
    with checked_stdout():
        {write}
except OutputError as error:
    print(error, file=sys.stderr)
    sys.exit(1)
"""
ROWS = "write_csv(['a'], ({'a': n} for n in range(100_000)), sys.stdout)"


def run(write, stdout=subprocess.PIPE, **environment):
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(write=write)],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path), **environment},
    )


@pytest.mark.parametrize("write", [ROWS, "print('small')", "sys.stdout.buffer.write(b'x')"])
def test_a_full_disk_is_one_line(write):
    with open("/dev/full", "w") as full:
        result = run(write, full)
    assert result.returncode == 1
    assert result.stderr == (
        "standard output cannot be written (No space left on device): redirect it to another "
        "place\n"
    )


@pytest.mark.parametrize("write", ["print('ü')", "write_table(['a'], [{'a': None}], sys.stdout)"])
def test_a_character_that_the_encoding_has_not_is_one_line(write):
    result = run(write, PYTHONIOENCODING="ascii")
    assert result.returncode == 1
    assert "(its encoding is ascii): set PYTHONIOENCODING=utf-8" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_reader_that_has_gone_is_no_error():
    line = f'{sys.executable} -c "$PROGRAM" | head -n 1; echo ${{PIPESTATUS[0]}}'
    result = subprocess.run(
        ["bash", "-c", line],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path), "PROGRAM": PROGRAM.format(write=ROWS)},
    )
    assert (result.stdout, result.stderr) == ("a\n141\n", "")


def test_what_is_written_arrives():
    assert run("print('ü'); sys.exit(3)").stdout == "ü\n"
    assert run("print('ü'); sys.exit(3)").returncode == 3
