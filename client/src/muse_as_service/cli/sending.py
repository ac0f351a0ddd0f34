"""Sends the sentences of a batch: in smaller requests after a timeout, and without those that the service rejects."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Callable

import numpy as np

from .. import MUSEError, Retry, UnavailableError
from .._chunking import MAX_SENTENCES
from .notices import RetryNotices

Work = Callable[[list[str]], Any]
"""Returns a result for each sentence: an array, or a list."""

# A request that takes less than this fraction of the timeout may grow.
FAST = 0.25


@dataclass
class Outcome:
    """The results of a batch."""

    results: Any
    """For the sentences that are not rejected, in their order."""
    rejected: dict[int, str] = field(default_factory=dict)
    """The problem of each rejected sentence, by its index in the batch."""


class Sender:
    """Calls `work` for batches, from any number of threads.

    A request that times out is sent again in halves, down to a single sentence. Later requests have the size that
    succeeded, and grow again when they are fast.
    """

    work: Work

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._limit = MAX_SENTENCES
        self._lock = threading.Lock()
        self._notify = RetryNotices()
        self._request = threading.local()
        self._stopped = False

    def stop(self) -> None:
        """Ends retries, after which nobody waits for results."""
        self._stopped = True

    def on_retry(self, retry: Retry) -> None:
        """The hook of the client: prints notices, and ends retries of a request that must become smaller."""
        if self._stopped:
            # The connection is closed because the job has ended, also if the service is well.
            raise retry.error
        if timed_out(retry.error) and getattr(self._request, "sentences", 0) > 1:
            raise retry.error
        self._notify(retry)

    def send(self, sentences: Sequence[str]) -> Outcome:
        """Raises `MUSEError` if the service is unavailable or refuses the caller."""
        remaining = list(range(len(sentences)))
        rejected: dict[int, str] = {}
        done: list[Any] = []
        while remaining:
            part = remaining[: self._limit]
            try:
                done.append(self._send([sentences[index] for index in part]))
                remaining = remaining[len(part) :]
            except MUSEError as error:
                if error.index is not None:
                    _, _, problem = error.message.partition("] ")
                    rejected[part[error.index]] = f"the sentence {problem or error.message}"
                    del remaining[error.index]
                elif not (timed_out(error) and self._shrink(len(part))):
                    raise
        return Outcome(_join(done), rejected)

    def _send(self, sentences: list[str]) -> Any:
        start = time.monotonic()
        self._request.sentences = len(sentences)
        try:
            results = self.work(sentences)
        finally:
            self._request.sentences = 0
        if time.monotonic() - start < FAST * self._timeout:
            self._grow(len(sentences))
        return results

    def _shrink(self, sentences: int) -> bool:
        """Halves the size of requests after one of so many sentences; returns False if it cannot be less."""
        with self._lock:
            self._limit = max(1, min(self._limit, sentences // 2))
        return sentences > 1

    def _grow(self, sentences: int) -> None:
        with self._lock:
            if sentences >= self._limit:
                self._limit = min(MAX_SENTENCES, 2 * self._limit)


def timed_out(error: MUSEError) -> bool:
    """Whether the service was too slow, here or at the gateway's deadline."""
    return isinstance(error, UnavailableError) and (error.reason == "DEADLINE_EXCEEDED" or error.status == 504)


def _join(results: list[Any]) -> Any:
    if len(results) == 1:
        return results[0]
    if results and isinstance(results[0], np.ndarray):
        return np.concatenate(results)
    return [tokens for part in results for tokens in part]
