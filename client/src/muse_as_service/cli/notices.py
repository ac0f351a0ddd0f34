"""Notices on standard error while a command waits."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import suppress

from .. import OverloadedError, Retry

# An overloaded service usually accepts the repeated request soon.
OVERLOADED_AFTER_S = 5.0
AGAIN_AFTER_S = 30.0


class RetryNotices:
    """Prints why a command waits, and for how long, at once and then once in 30 s."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._problem = ""
        self._printed = 0.0

    def __call__(self, retry: Retry) -> None:
        if isinstance(retry.error, OverloadedError) and retry.delay < OVERLOADED_AFTER_S:
            return
        problem, now = str(retry.error), time.monotonic()
        with self._lock:
            # The requests of all threads fail with the same error.
            if problem == self._problem and now - self._printed < AGAIN_AFTER_S:
                return
            self._problem, self._printed = problem, now
        print_notice(str(retry))


def print_notice(text: str) -> None:
    """Prints a line on standard error, instead of a progress bar there. Does nothing if it cannot be written."""
    with suppress(OSError, ValueError, AttributeError):
        erase = "\r\x1b[K" if sys.stderr.isatty() else ""
        print(f"{erase}{text}", file=sys.stderr, flush=True)
