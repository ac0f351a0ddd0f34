"""Assembles the results of a request: a result for each row, or the problem because of which it has none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

import numpy as np

from . import Failure
from .batches import Request
from .checkpoint import Item
from .inputs import BadRow, Input, Row
from .outputs import Batch, Sink, Skipped
from .sending import Outcome

REJECTED_BEFORE = "the service has rejected the same sentence before"


class Assembly:
    """Converts outcomes to batches of an output."""

    def __init__(self, source: Input, output: Sink, *, skips: bool, dedup: bool) -> None:
        self._source = source
        self._output = output
        self._skips = skips
        self._dedup = dedup

    def batch(self, request: Request, outcome: Outcome) -> tuple[Batch, Optional[Failure]]:
        """Returns the rows before the first problem, and the problem; with `skips` all rows."""
        problems = [_problem(item, outcome.rejected.get(number - request.first)) for item, number in _rows(request)]
        if not self._dedup:
            return self._select(request, problems, outcome.results, b"")
        new = self._new_vectors(request, outcome)
        vectors = self._all_vectors(request, new)
        for index, item in enumerate(request.items):
            if problems[index] is None and isinstance(item, Row) and np.isnan(vectors[index, 0]):
                problems[index] = REJECTED_BEFORE
        end = len(problems) if self._skips else _first_problem(problems)
        distinct = max((number - request.first + 1 for number in request.numbers[:end]), default=0)
        usable = [index for index, problem in enumerate(problems) if problem is None]
        return self._select(request, problems, vectors[usable], new[: max(0, distinct)].tobytes())

    def _select(
        self, request: Request, problems: Sequence[Optional[str]], results: Any, distinct: bytes
    ) -> tuple[Batch, Optional[Failure]]:
        """`results` are those of the rows without a problem."""
        end = len(problems) if self._skips else _first_problem(problems)
        rows: list[Row] = []
        skipped: list[Skipped] = []
        for item, problem in zip(request.items[:end], problems):
            if problem is not None:
                skipped.append(Skipped(self._source.names[item.source], item.place, problem, self._source.place(item)))
            elif isinstance(item, Row):
                rows.append(item)
        failure = None
        if end < len(problems):
            failure = Failure(f"{self._source.place(request.items[end])}: {problems[end]}")
        return Batch(request.items[:end], rows, results[: len(rows)], skipped, distinct), failure

    def _new_vectors(self, request: Request, outcome: Outcome) -> Any:
        """The vectors of the sentences of the request; NaN for rejected ones."""
        new = np.full((len(request.sentences), self._output.layout.dimension), np.nan, np.float32)
        accepted = [index for index in range(len(request.sentences)) if index not in outcome.rejected]
        if accepted:
            self._output.layout.check(outcome.results)
            new[accepted] = outcome.results
        return new

    def _all_vectors(self, request: Request, new: Any) -> Any:
        """The vectors of all rows, with those of repeated sentences; those of invalid rows are undefined."""
        repeated = sorted({number for number in request.numbers if 0 <= number < request.first})
        known = np.concatenate([new, self._output.vectors(repeated)]) if repeated else new
        place = {number: len(new) + index for index, number in enumerate(repeated)}
        if not len(known):
            return np.zeros((len(request.items), new.shape[1]), np.float32)
        return known[[place.get(number, max(0, number - request.first)) for number in request.numbers]]


def _rows(request: Request) -> zip[tuple[Item, int]]:
    return zip(request.items, request.numbers)


def _problem(item: Item, rejection: Optional[str]) -> Optional[str]:
    return item.problem if isinstance(item, BadRow) else rejection


def _first_problem(problems: Sequence[Optional[str]]) -> int:
    return next((index for index, problem in enumerate(problems) if problem is not None), len(problems))
