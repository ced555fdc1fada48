"""Trying again: storage that is busy or away for a while is waited for, with growing pauses."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from itertools import count
from typing import TypeVar

from ganad.errors import GanadError, Outage
from ganad.storage import files as storage
from ganad.storage.reasons import Reason, reason_of

T = TypeVar("T")
OnRetry = Callable[[str], object]
"""Called with the reason of a failure after which something is tried again."""

WAITS_S = (0.5, 1.0, 2.0)
"""Before the second, third and fourth attempt; the S3 client has tried several times by itself each
time. Later pauses double, up to LONGEST_WAIT_S."""
LONGEST_WAIT_S = 30.0
JOB_PATIENCE_S = float(os.environ.get("GANAD_PATIENCE_S", "900"))
"""How long a job waits for storage that does not answer before it stops."""


def patiently(
    action: Callable[[], T], uri: str, patience_s: float, on_retry: OnRetry | None = None
) -> T:
    """The action's result. Failures that may pass are tried again: four times where the storage
    answers otherwise or patience_s is 0, else for as long as patience_s.

    Raises what the action raised last, or Outage when patience has run out.
    """
    began = time.monotonic()
    for attempt in count():
        try:
            return action()
        except Exception as error:
            reason = why(error)
            if reason is None or not reason.transient:
                raise
            if attempt >= len(WAITS_S):
                if patience_s == 0 or answers(uri):
                    raise
                waited = time.monotonic() - began
                if waited > patience_s:
                    raise Outage(
                        f"{uri}: {reason.text}; the storage has not answered for {waited:.0f} s: "
                        f"run the same command again when it does"
                    ) from error
            if on_retry is not None:
                on_retry(reason.text)
        # Spread out, as the workers that failed together would come back together.
        time.sleep(_pause(attempt) * random.uniform(0.5, 1.5))
    raise AssertionError("the loop has no end of its own")


def why(error: BaseException) -> Reason | None:
    """The reason of an error of storage, also of one that is in words already."""
    if isinstance(error, GanadError):
        return why(error.__cause__) if error.__cause__ is not None else None
    return reason_of(error)


def _pause(attempt: int) -> float:
    if attempt < len(WAITS_S):
        return WAITS_S[attempt]
    return float(min(LONGEST_WAIT_S, WAITS_S[-1] * 2 ** (attempt - len(WAITS_S) + 1)))


def answers(uri: str) -> bool:
    """Whether the storage answers at all, be it with a refusal: then the fault lies in one file."""
    try:
        if storage.is_remote(uri):
            bucket, _ = storage.split_key(uri)
            next(iter(storage.pages(f"s3://{bucket}", keys=1)), None)
        else:
            os.stat(os.path.dirname(uri))
    except Exception as error:
        reason = why(error)
        return reason is None or not reason.transient
    return True
