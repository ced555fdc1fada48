"""What is tried again, for how long, and whose fault is whose."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tenacity import wait_none

from ganad.archive import parts
from ganad.errors import ArchiveError, Outage
from ganad.images.decode import Preprocessing
from ganad.images.load import load_images
from ganad.storage import retry as patience
from ganad.storage import s3 as s3_module
from ganad.storage.retry import answers, patiently
from tests.proxy import Proxy

GREY = Preprocessing(image_size=4, channels=1)


@pytest.fixture(autouse=True)
def one_attempt(monkeypatch):
    """The client's own attempts take seconds each, and are not what is tested here."""
    monkeypatch.setattr(s3_module, "ATTEMPTS", 1)


@pytest.fixture
def pauses(monkeypatch):
    """The pauses made, none of which is waited for."""
    made = []
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    monkeypatch.setattr("time.sleep", made.append)
    return made


class Failing:
    """Fails some times, then succeeds."""

    def __init__(self, times, error=ConnectionResetError):
        self.left, self.error = times, error

    def __call__(self):
        if self.left:
            self.left -= 1
            raise self.error
        return "done"


def test_a_failure_that_may_pass_is_tried_again(pauses, tmp_path):
    reasons = []
    assert patiently(Failing(3), f"{tmp_path}/x", 0, reasons.append) == "done"
    assert pauses == [1, 2, 4]
    assert len(reasons) == 3


def test_other_failures_are_not(pauses, tmp_path):
    with pytest.raises(FileNotFoundError):
        patiently(Failing(1, FileNotFoundError), f"{tmp_path}/x", 900)
    assert pauses == []


def test_a_fault_of_one_file_is_given_up_where_the_storage_answers(pauses, tmp_path):
    with pytest.raises(ConnectionResetError):
        patiently(Failing(99), f"{tmp_path}/x", 900)
    assert pauses == [1, 2, 4, 8]


def test_an_outage_that_ends_behind_the_last_attempt_is_not_a_fault_of_the_file(pauses, tmp_path):
    assert patiently(Failing(4), f"{tmp_path}/x", 900) == "done"


def test_an_outage_is_waited_for_with_growing_pauses(pauses, tmp_path, monkeypatch):
    monkeypatch.setattr(patience, "answers", lambda uri: False)
    assert patiently(Failing(9), f"{tmp_path}/x", 900) == "done"
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_patience_ends(pauses, tmp_path, monkeypatch):
    monkeypatch.setattr(patience, "answers", lambda uri: False)
    clock = iter(range(0, 10_000, 7))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    with pytest.raises(Outage, match=r"has not answered for \d+ s: run the same command again"):
        patiently(Failing(99), f"{tmp_path}/x", 5)


def test_errors_in_words_are_understood(pauses, tmp_path):
    def fail():
        try:
            raise ConnectionResetError
        except ConnectionResetError as error:
            raise ArchiveError("x: the connection failed") from error

    with pytest.raises(ArchiveError, match="the connection failed"):
        patiently(fail, f"{tmp_path}/x", 0)
    assert len(pauses) == 3


def test_whether_a_server_answers(s3, monkeypatch):
    s3.put("answering/a.png", b"x")
    proxy = Proxy(s3.endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    assert answers("s3://answering/a.png")
    assert answers("s3://no-such-bucket/a.png")
    for mode in ("busy", "gone"):
        proxy.mode = mode
        assert not answers("s3://answering/a.png")
    proxy.mode = "pass"
    assert answers("s3://answering/a.png")
    proxy.close()


def test_an_outage_in_a_job_is_no_error_of_the_images(s3, monkeypatch):
    row = {"uri": s3.put("answering/b.png", b"x"), "offset": None, "size": None}
    monkeypatch.setattr(patience, "WAIT", wait_none())
    proxy = Proxy(s3.endpoint)
    proxy.mode = "busy"
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    with pytest.raises(Outage, match=r"^s3://answering/b\.png: S3 answers SlowDown"):
        load_images([row], [GREY], patience_s=0.01)
    ((one,),) = load_images([row], [GREY])
    assert one.error.startswith("cannot be fetched: S3 answers SlowDown")
    proxy.close()


def test_missing_credentials_in_a_job_are_no_error_of_the_images(s3, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    row = {"uri": "s3://bucket/a.png", "offset": None, "size": None}
    with pytest.raises(ArchiveError, match=r"^s3://bucket/a\.png: no AWS credentials were found"):
        load_images([row], [GREY], patience_s=900)


def test_a_parquet_file_on_a_server_that_is_away_is_not_taken_for_missing(s3, monkeypatch):
    sink = io.BytesIO()
    pq.write_table(pa.table({"image": [b"x"]}), sink)
    uri = s3.put("answering/x.parquet", sink.getvalue())
    proxy = Proxy(s3.endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    assert parts.read_rows(uri, 0, 1) == [{"image": b"x"}]
    for mode in ("busy", "gone"):
        proxy.mode = mode
        with pytest.raises(ArchiveError) as caught:
            parts.read_rows(uri, 0, 1)
        assert patience.why(caught.value).transient
    proxy.close()
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    with pytest.raises(ArchiveError, match="there is no such file"):
        parts.read_rows("s3://answering/none.parquet", 0, 1)
