"""Retries: storage that is busy or unreachable is asked again, with growing pauses."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from ganad.errors import GanadError, Outage
from ganad.storage import files as storage
from ganad.storage import s3
from ganad.storage.reasons import Reason, reason_of

T = TypeVar("T")
OnRetry = Callable[[str], object]
"""Called with the reason of a failure before the next attempt."""

NUM_ATTEMPTS = 4
"""Attempts for a fault that may be of one file alone; the S3 client has tried several times by
itself in each of them."""
WAIT = wait_random_exponential(multiplier=1, max=60)
"""Seconds between attempts, drawn from 0..1, 0..2, 0..4 and so on: workers that failed together
must not come back together."""
JOB_PATIENCE_S = float(os.environ.get("GANAD_PATIENCE_S", "900"))
"""How long a job waits for storage that does not answer before it stops."""


def patiently(
    action: Callable[[], T], uri: str, patience_s: float, on_retry: OnRetry | None = None
) -> T:
    """The action's result. Failures that may pass are retried: NUM_ATTEMPTS times if patience_s is
    0, once more if the storage answers otherwise, else for patience_s.

    Raises what the action raised last, or Outage after patience_s.
    """

    num_answered = 0

    def gives_up(state: RetryCallState) -> bool:
        nonlocal num_answered
        if state.attempt_number < NUM_ATTEMPTS:
            return False
        if patience_s == 0:
            return True
        if answers(uri):
            # What failed so far may have failed in an outage that has just ended: once more.
            num_answered += 1
            return num_answered > 1
        waited = state.seconds_since_start or 0.0
        if waited > patience_s:
            raise Outage(
                f"{uri}: {_text(state)}; the storage has not answered for {waited:.0f} s: run the "
                f"same command again when it does"
            ) from _error(state)
        return False

    def report(state: RetryCallState) -> None:
        if on_retry is not None:
            on_retry(_text(state))

    retrying = Retrying(
        retry=retry_if_exception(_may_pass),
        stop=gives_up,
        wait=WAIT,
        before_sleep=report,
        reraise=True,
    )
    return retrying(action)


def why(error: BaseException) -> Reason | None:
    """The reason of an error of storage, also of one that was translated already."""
    if isinstance(error, GanadError):
        return why(error.__cause__) if error.__cause__ is not None else None
    return reason_of(error)


def _may_pass(error: BaseException) -> bool:
    reason = why(error)
    return reason is not None and reason.transient


def _error(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome is not None else None


def _text(state: RetryCallState) -> str:
    error = _error(state)
    reason = why(error) if error is not None else None
    return reason.text if reason is not None else ""


def answers(uri: str) -> bool:
    """Whether the storage answers at all, even with a refusal: then the fault is in one file."""
    try:
        if storage.is_remote(uri):
            next(iter(s3.pages(f"s3://{s3.split_key(uri)[0]}", keys=1)), None)
        else:
            os.stat(os.path.dirname(uri))
    except Exception as error:
        return not _may_pass(error)
    return True
