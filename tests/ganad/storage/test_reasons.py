"""Reasons for failures: in our words, without secrets, and whether to try again."""

import botocore.exceptions
import pytest

from ganad.storage.reasons import reason_of


def client_error(code, message="key AKIASECRET was wrong"):
    response = {"Error": {"Code": code, "Message": message}}
    return botocore.exceptions.ClientError(response, "GetObject")


@pytest.mark.parametrize(
    ("code", "said", "transient"),
    [
        ("NoSuchBucket", "no such bucket", False),
        ("NoSuchKey", "no such object", False),
        ("404", "no such object", False),
        ("403", "access denied", False),
        ("AccessDenied", "access denied", False),
        ("InvalidAccessKeyId", "credentials were refused", False),
        ("ExpiredToken", "have expired", False),
        ("SlowDown", "S3 answers SlowDown", True),
        ("503", "S3 answers 503", True),
        ("SomethingNew", "S3 answers SomethingNew", False),
    ],
)
def test_what_the_server_answers(code, said, transient):
    # s3fs raises an OSError of its own with the client's error as the cause.
    wrapped = OSError(5, "key AKIASECRET was wrong")
    wrapped.__cause__ = client_error(code)
    for error in (client_error(code), wrapped):
        reason = reason_of(error)
        assert said in reason.text
        assert reason.transient is transient
        assert "AKIASECRET" not in reason.text


@pytest.mark.parametrize(
    ("error", "said", "transient"),
    [
        (botocore.exceptions.NoCredentialsError(), "no AWS credentials were found", False),
        (botocore.exceptions.ProfileNotFound(profile="x"), "check AWS_PROFILE", False),
        (botocore.exceptions.ReadTimeoutError(endpoint_url="x"), "broke off", True),
        (TimeoutError(), "connection failed", True),
        (ConnectionResetError(), "connection failed", True),
        (FileNotFoundError(2, "x"), "no such file", False),
        (PermissionError(13, "x"), "permission denied", False),
        (OSError(28, "x"), "the disk is full; make room there", False),
        (OSError(122, "x"), "the disk quota is used up; make room there", False),
        (IsADirectoryError(21, "x"), "is not a regular file", False),
    ],
)
def test_what_happens_before_an_answer(error, said, transient):
    reason = reason_of(error)
    assert said in reason.text
    assert reason.transient is transient


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://user:hidden@host:9000", "host:9000; check AWS_ENDPOINT_URL"),
        ("https://user:hidden@host/path?token=hidden", "host; check AWS_ENDPOINT_URL"),
        ("", "AWS S3; check the network"),
    ],
)
def test_the_endpoint_is_shown_without_its_password(monkeypatch, url, shown):
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    error = botocore.exceptions.EndpointConnectionError(endpoint_url=url or "x")
    assert reason_of(error).text == f"cannot connect to {shown}"
    assert reason_of(error).transient


def test_errors_of_the_program_are_not_explained_away():
    for error in (KeyError("x"), ValueError("x"), AssertionError()):
        assert reason_of(error) is None
