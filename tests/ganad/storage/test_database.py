"""DuckDB within limits: what it spills, and what a killed process leaves behind."""

import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from ganad.errors import ConfigError
from ganad.storage.database import Database, Limits, identifier, quoted

SPILLING = "SELECT count(*) FROM (SELECT md5(range::VARCHAR) h FROM range(20000000) ORDER BY h)"
HELD = """
import sys, time
from ganad.storage.database import Database, Limits
database = Database(limits=Limits(memory=60 * 2**20))
print(database.spill.place, flush=True)
{then}
"""


@pytest.fixture
def spill(tmp_path, monkeypatch):
    """The folder in which spill folders are made."""
    place = tmp_path / "it's tmp"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr("tempfile.tempdir", None)
    return place


def folders(place):
    return sorted(place.glob("ganad-spill-*"))


def test_a_spill_folder_is_private_and_goes_with_its_connection(spill):
    database = Database()
    (folder,) = folders(spill)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert database.connection.execute("SELECT current_setting('temp_directory')").fetchall() == [
        (str(folder),)
    ]
    database.close()
    assert folders(spill) == []


def test_a_forgotten_connection_takes_its_spill_folder_along(spill):
    database = Database()
    assert len(folders(spill)) == 1
    del database
    assert folders(spill) == []


@contextmanager
def held(then="time.sleep(600)"):
    """A process that has a connection, and its spill folder."""
    program = [sys.executable, "-c", HELD.format(then=then)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


def test_what_a_killed_process_left_is_removed_at_the_next_start(spill):
    with held() as (process, folder):
        (folder / "duckdb_temp_storage_DEFAULT-0.tmp").write_bytes(b"rows")
        Database().close()
        assert folder.exists()  # its process lives
        process.kill()
        process.wait()
        Database().close()
        assert not folder.exists()


def test_folders_that_are_not_ours_are_left_alone(spill, tmp_path):
    (spill / "ganad-spill-being-made").mkdir()
    (spill / "ganad-spill-link").symlink_to(tmp_path)
    Database().close()
    assert [folder.name for folder in folders(spill)] == [
        "ganad-spill-being-made",
        "ganad-spill-link",
    ]


def test_without_a_place_to_spill_queries_still_run(monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", "/nonexistent")
    database = Database()
    assert database.connection.sql("SELECT 1").fetchall() == [(1,)]
    database.close()


def test_an_interrupt_ends_a_query(spill):
    then = f"database.run(lambda: database.connection.execute({SPILLING!r}).fetchall())"
    with held(then) as (process, folder):
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        process.wait(60)
        assert time.monotonic() - began < 10  # the query takes longer
        assert process.returncode == -signal.SIGINT
        assert not folder.exists()


def test_results_and_errors_come_out_of_the_thread():
    database = Database()
    assert database.run(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        database.run(lambda: 1 // 0)
    database.close()


def test_names_and_text_are_quoted():
    database = Database()
    sql = f"SELECT {quoted(chr(39) * 2 + 'x')} AS {identifier('a ' + chr(34))}"
    relation = database.connection.sql(sql)
    assert (relation.columns, relation.fetchall()) == (['a "'], [("''x",)])
    database.close()


@pytest.mark.parametrize(
    ("memory", "spill", "message"),
    [
        ("much", None, r"^--memory much is not a size: give a number such as 4GB$"),
        ("-1GB", None, r"^--memory -1GB is not a size"),
        ("1KB", None, r"^--memory 1KB is too little"),
        (None, "x", r"^--spill x is not a size"),
    ],
)
def test_a_wrong_limit_is_refused(memory, spill, message):
    with pytest.raises(ConfigError, match=message):
        Limits.parse(memory, spill)


def test_limits_are_those_of_duckdb():
    database = Database(limits=Limits.parse("100MB", "1GiB"))
    settings = database.connection.execute(
        "SELECT current_setting('memory_limit'), current_setting('max_temp_directory_size')"
    ).fetchone()
    assert settings == ("95.3 MiB", "1.0 GiB")
    database.close()
