"""Calls for any number of sentences: their chunks, and the results in the order of the sentences.

All results of a call are of one model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Callable, Generic, Optional, TypeVar

from ._chunking import MAX_SENTENCES, chunks, size
from ._fingerprint import Requirement
from ._retry import logger
from .errors import FingerprintMismatchError, MUSEError

T = TypeVar("T")
R = TypeVar("R")
Progress = Callable[[int, int], None]
"""Called with the number of sentences that are done, and of all."""


@dataclass(frozen=True)
class Chunk:
    """The sentences of a request."""

    sentences: list[str]
    start: int
    """The position of the first one in the input."""

    def positions(self) -> range:
        return range(self.start, self.start + len(self.sentences))


@dataclass(frozen=True)
class Attempt:
    """An execution of a job. After a change of the model there is a second one, while requests of the first may still
    run: they share nothing."""

    requirement: Requirement
    reasons: Optional[dict[int, str]]
    """The positions of sentences that get no result, and why. None if these are errors."""


class Job(Generic[T]):
    """The results of consecutive chunks, which `add` receives in order, and their combination."""

    def __init__(
        self,
        sentences: list[str],
        combine: Callable[[list[Any]], T],
        progress: Optional[Progress],
        chunk_size: int,
        required: Optional[str],
        reasons: Optional[dict[int, str]] = None,
    ) -> None:
        """`required` is the fingerprint that the caller requires. Sentences in `reasons` get no result."""
        self.chunks = list(_chunks_of(sentences, chunk_size))
        self._combine = combine
        self._progress = progress
        self._total = len(sentences)
        self._required = required
        self._reasons = reasons
        self._restarted = False
        self._begin()

    def _begin(self) -> None:
        self.attempt = Attempt(Requirement(self._required), None if self._reasons is None else dict(self._reasons))
        self._results: list[Any] = []
        self._added = 0

    def bound(self, run: Callable[[Chunk, Attempt], R]) -> Callable[[Chunk], R]:
        """The function for the current attempt, also if it is called after that."""
        attempt = self.attempt
        return lambda chunk: run(chunk, attempt)

    def restart(self, error: MUSEError) -> bool:
        """Discards all results if the model has changed since the first response, so that the job begins again with
        whatever model the service has now: the response that differs may be an earlier one. Returns False if it must
        not: after other errors, with a requirement of the caller, and the second time."""
        if not isinstance(error, FingerprintMismatchError) or self._required is not None or self._restarted:
            return False
        self._restarted = True
        logger.warning("the model of the service has changed during a call, which starts over: %s", error)
        self._begin()
        return True

    def add(self, results: Iterable[Any]) -> None:
        """Adds the results of the next chunk, and reports the progress."""
        self._results += results
        chunk = self.chunks[self._added]
        self._added += 1
        if self._progress is not None:
            self._progress(chunk.start + len(chunk.sentences), self._total)

    def result(self) -> T:
        return self._combine(self._results)

    def failure(self, error: MUSEError) -> MUSEError:
        """The error with the results so far."""
        if isinstance(error, FingerprintMismatchError):
            self._results = []
            if self._required is None:
                error = _changed_again(error)
        error.partial = self.result()
        return error


def _changed_again(error: FingerprintMismatchError) -> FingerprintMismatchError:
    text = f"the service had several models during the call, with the fingerprints {error.expected} and {error.found}"
    return FingerprintMismatchError(
        f"{text}, also after the call started over: try again when all gateways have the same model",
        status=error.status,
        reason=error.reason,
        expected=error.expected,
        found=error.found,
    )


def _chunks_of(sentences: list[str], chunk_size: int) -> Iterator[Chunk]:
    start = 0
    for chunk in chunks(((sentence, size(sentence)) for sentence in sentences), min(chunk_size, MAX_SENTENCES)):
        yield Chunk(chunk, start)
        start += len(chunk)
