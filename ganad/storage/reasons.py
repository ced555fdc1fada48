"""Why storage failed: the errors of files and of S3, each turned into a short sentence.

Messages of a server are not passed on: they may hold keys, and they differ between servers.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from ganad.errors import ArchiveError


class IrregularFileError(OSError):
    """A folder, pipe, socket or device is named where a file is expected."""


@dataclass(frozen=True)
class Reason:
    """text: has no path and no secret in it. transient: trying again may help. everywhere: every
    other file would fail too."""

    text: str
    transient: bool = False
    everywhere: bool = False


_NO_CREDENTIALS = (
    "no AWS credentials were found; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, or run where an instance role gives them"
)
_REFUSED = Reason(
    "the AWS credentials were refused; check AWS_ACCESS_KEY_ID and its secret", everywhere=True
)
_REFUSED_CODES = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthorizationHeaderMalformed"}
_FULL = {
    errno.ENOSPC: "the disk is full; make room there, or write to another disk",
    errno.EDQUOT: "the disk quota is used up; make room there, or write to another disk",
    errno.EFBIG: "the file is larger than the system allows; raise the limit (ulimit -f)",
}
_PROCESS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_BUSY = {errno.EBUSY, errno.EREMOTEIO, errno.ETIMEDOUT, errno.ECONNRESET, errno.EPIPE}


@contextmanager
def translated(uri: str) -> Iterator[None]:
    """Turn what storage raises into an ArchiveError that begins with uri."""
    try:
        yield
    except Exception as error:
        reason = reason_of(error)
        if reason is None:
            raise
        raise ArchiveError(f"{uri}: {reason.text}") from error


def reason_of(error: BaseException) -> Reason | None:
    """Why storage raised error; None for an error that is not about storage."""
    reason = _of_s3(error)
    if reason is not None:
        return reason
    if isinstance(error, FileNotFoundError):
        return Reason("there is no such file; check the path")
    if isinstance(error, PermissionError):
        return Reason("permission denied; check who may read and write there")
    if isinstance(error, TimeoutError | ConnectionError):
        return Reason(f"the connection failed ({type(error).__name__}); try again", transient=True)
    if isinstance(error, IrregularFileError | IsADirectoryError):
        return Reason("is not a regular file but a folder, pipe or device; name a file")
    if isinstance(error, OSError):
        if error.errno in _FULL:
            return Reason(_FULL[error.errno], everywhere=True)
        text = os.strerror(error.errno) if error.errno else type(error).__name__
        return Reason(
            f"{text}; check the storage", error.errno in _BUSY, everywhere=error.errno in _PROCESS
        )
    return None


def code_of(error: BaseException) -> str | None:
    """The code that an S3 server answered with; None for other errors."""
    response = getattr(error.__cause__ or error, "response", None)
    return response.get("Error", {}).get("Code") if isinstance(response, dict) else None


def _of_s3(error: BaseException) -> Reason | None:
    """Reasons of S3 alone, by the server's code or by the client's error class."""
    code = code_of(error)
    if code == "NoSuchBucket":
        return Reason("there is no such bucket; check its name")
    if code in _REFUSED_CODES:
        return _REFUSED
    if code in {"ExpiredToken", "TokenRefreshRequired", "InvalidToken"}:
        return Reason("the AWS credentials have expired; renew them", everywhere=True)
    if code in {"AccessDenied", "AllAccessDisabled", "403"}:
        return Reason("access denied; check the credentials and the bucket's policy")
    if code in {"NoSuchKey", "404"}:
        return Reason("there is no such object; check the key")
    if code in {"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "500", "503"}:
        return Reason(f"S3 answers {code}; try again later", transient=True)
    if code is not None:
        return Reason(f"S3 answers {code}; check the request and the bucket")
    return _of_client(error)


def _of_client(error: BaseException) -> Reason | None:
    """Reasons that arise before the server answers. Classes are compared by name, because the S3
    client, which raises those of botocore, aiohttp and urllib3, is imported only if it is used."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"}:
        return Reason(_NO_CREDENTIALS, everywhere=True)
    if names & {"ProfileNotFound", "TokenRetrievalError", "SSOError"}:
        text = "the AWS profile does not exist or has expired; check AWS_PROFILE"
        return Reason(text, everywhere=True)
    if names & {"EndpointConnectionError", "ConnectTimeoutError", "ProxyConnectionError"}:
        return Reason(f"cannot connect to {_endpoint()}", transient=True)
    if names & {"HTTPClientError", "FSTimeoutError", "IncompleteRead", "ClientPayloadError"}:
        return Reason(f"the connection broke off ({type(error).__name__})", transient=True)
    if "ParamValidationError" in names:
        return Reason("is not a valid S3 address; give s3://bucket/prefix")
    if names & {"BotoCoreError", "ClientError"}:
        return Reason(f"S3 failed ({type(error).__name__}); check the AWS settings")
    return None


def _endpoint() -> str:
    """Host and port of the endpoint, without its user name and password."""
    url = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not url:
        return "AWS S3; check the network"
    parts = urlsplit(url)
    return (
        f"{parts.hostname}:{parts.port}; check AWS_ENDPOINT_URL"
        if parts.port
        else (f"{parts.hostname}; check AWS_ENDPOINT_URL")
    )
