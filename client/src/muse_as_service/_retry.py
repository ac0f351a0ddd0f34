"""When a failed call is repeated."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass
from typing import Any, Callable

from ._calls import Call
from .errors import MUSEError, UnavailableError

INITIAL_BACKOFF_S = 0.2
MAX_BACKOFF_S = 10.0
# A quota is exhausted until its period ends, usually for hours; the others need a change of the configuration.
PERMANENT = ("QUOTA_EXHAUSTED", "CERTIFICATE", "NOT_TLS")

logger = logging.getLogger("muse_as_service")


@dataclass(frozen=True)
class Retry:
    """A failed call that the client repeats. `str()` describes it in one line."""

    error: MUSEError
    attempt: int
    """The number of failed attempts."""
    delay: float
    """Seconds until the next attempt."""
    remaining: float
    """Seconds for which the client goes on to retry."""

    def __str__(self) -> str:
        problem = str(self.error)
        end = "" if problem.endswith(("?", ".", "!")) else "."
        return f"{problem}{end} Retrying for up to {self.remaining:.0f} s"


RetryHook = Callable[[Retry], None]


def log_retry(retry: Retry) -> None:
    """The default hook: logs a warning for the first retry of a call while the service is away."""
    warns = retry.attempt == 1 and isinstance(retry.error, UnavailableError)
    logger.log(logging.WARNING if warns else logging.DEBUG, "%s", retry)


def may_retry(error: MUSEError, call: Call[Any]) -> bool:
    """Whether a retry may succeed, and the service cannot execute the call twice."""
    if error.reason in PERMANENT:
        return False
    if call.idempotent:
        return True
    if error.status is None:
        return isinstance(error, UnavailableError) and not error.sent
    # A proxy may respond with a 5xx although the service has received the call.
    return error.status < 500 or (call.retried_after_5xx and error.from_service)


def backoff(error: MUSEError, attempts: int) -> float:
    """Seconds until the next attempt: `Retry-After`, else exponential backoff; both with jitter."""
    if error.retry_after is not None:
        return error.retry_after + random.uniform(0, INITIAL_BACKOFF_S)
    return min(MAX_BACKOFF_S, INITIAL_BACKOFF_S * 2.0**attempts) * random.uniform(0.5, 1)
