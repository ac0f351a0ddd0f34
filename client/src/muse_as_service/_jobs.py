"""Calls for any number of sentences: their chunks, and the results in the order of the sentences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Callable, Generic, Optional, TypeVar

from ._chunking import MAX_SENTENCES, chunks, size
from .errors import MUSEError

T = TypeVar("T")
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


class Job(Generic[T]):
    """The results of consecutive chunks, which `add` receives in order, and their combination."""

    def __init__(
        self, sentences: list[str], combine: Callable[[list[Any]], T], progress: Optional[Progress], chunk_size: int
    ) -> None:
        self.chunks = list(_chunks_of(sentences, chunk_size))
        self._combine = combine
        self._progress = progress
        self._total = len(sentences)
        self._results: list[Any] = []
        self._added = 0

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
        error.partial = self.result()
        return error


def _chunks_of(sentences: list[str], chunk_size: int) -> Iterator[Chunk]:
    start = 0
    for chunk in chunks(((sentence, size(sentence)) for sentence in sentences), min(chunk_size, MAX_SENTENCES)):
        yield Chunk(chunk, start)
        start += len(chunk)
