"""Groups the rows of an input into batches, each for one request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Optional

from .._chunking import MAX_BYTES, MAX_SENTENCES, size
from . import Failure
from .checkpoint import Item
from .dedup import Distinct
from .inputs import BadRow, Input

# Of rows without a new sentence: repeated or invalid ones.
MAX_ROWS = 8 * MAX_SENTENCES


class Rows:
    """The rows of an input that belong to a shard, up to the first invalid one, so that the rows before it are
    processed."""

    def __init__(self, source: Input, shard: tuple[int, int], skips: bool) -> None:
        """With `skips`, invalid rows do not end the input. The shard is a number from 1, and the number of shards."""
        self.failure: Optional[Failure] = None
        self.read: Optional[float] = None
        self._source = source
        self._skips = skips
        number, count = shard
        self._rows = islice(self._until_failure(), number - 1, None, count)

    def __iter__(self) -> Iterator[Item]:
        for row in self._rows:
            if isinstance(row, BadRow) and not self._skips:
                self.failure = Failure(f"{self._source.place(row)}: {row.problem}")
                return
            self.read = row.read
            yield row

    def first(self, count: int) -> Iterator[Item]:
        """The next rows. Raises `Failure` if reading ends earlier because of an invalid one."""
        yield from islice(self, count)
        if self.failure is not None:
            raise self.failure

    def _until_failure(self) -> Iterator[Item]:
        try:
            yield from self._source.rows()
        except Failure as failure:
            self.failure = failure


@dataclass
class Request:
    """Rows, and the sentences of them to send."""

    items: list[Item] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)
    first: int = 0
    """The number of the first of the sentences, with `--dedup`; else 0."""
    numbers: list[int] = field(default_factory=list)
    """The number of the sentence of each row; -1 for an invalid row."""


def requests(rows: Rows, distinct: Optional[Distinct]) -> Iterator[Request]:
    """Yields requests that fit into the limits of the service. Their boundaries depend on the rows only."""
    request, total = Request(first=distinct.count if distinct else 0), 0
    for item in rows:
        if len(request.items) == MAX_ROWS:
            yield request
            request, total = Request(first=distinct.count if distinct else 0), 0
        if isinstance(item, BadRow):
            request.items.append(item)
            request.numbers.append(-1)
            continue
        added = size(item.sentence)
        if request.sentences and (len(request.sentences) == MAX_SENTENCES or total + added > MAX_BYTES):
            yield request
            request, total = Request(first=distinct.count if distinct else 0), 0
        number = distinct.number(item.sentence) if distinct else len(request.sentences)
        request.items.append(item)
        request.numbers.append(number)
        if number == request.first + len(request.sentences):
            request.sentences.append(item.sentence)
            total += added
    if request.items:
        yield request
