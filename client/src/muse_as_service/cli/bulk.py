"""`muse embed` and `muse tokenize`: process a file of any size with several requests in flight."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from itertools import islice
from typing import Any, Callable, Optional, Union

from .. import MUSEError
from .._chunking import chunks, size
from . import Failure
from .inputs import BadRow, Input, Row
from .outputs import Output, StandardOutput
from .progress import Progress

Work = Callable[[list[str]], Any]


class Stopped(Exception):
    """Interrupted by Ctrl-C or SIGTERM; the message says how many sentences are saved."""


def run(source: Input, output: Union[Output, StandardOutput], work: Work, in_flight: int) -> None:
    """Applies `work` to the sentences of `source`, one batch per request, and writes the results.

    Raises `Failure` and `Stopped`.
    """
    with output:
        rows = _Rows(source)
        if output.rows:
            output.skip(rows.sentences(output.rows), source.name)
        progress = Progress(output.rows, rows.read)
        try:
            for batch, results in _in_order(rows, work, in_flight):
                output.append([row.sentence for row in batch], _result(results, batch, source))
                progress.update(output.rows, batch[-1].read)
            if rows.failure is not None:
                raise rows.failure
            if output.rows == 0:
                raise Failure(f"{source.name} is empty: it contains no sentences")
            output.finish()
        except Failure as failure:
            progress.clear()
            raise Failure(f"{failure}{_retained_rows(output)}") from None
        except KeyboardInterrupt:
            progress.clear()
            raise Stopped(f"stopped{_retained_rows(output)}") from None
        progress.end(output.path)


class _Rows:
    """The rows of an input up to the first invalid one, so that the rows before it are processed."""

    def __init__(self, source: Input) -> None:
        self.failure: Optional[Failure] = None
        self.read: Optional[float] = None
        self._rows = self._until_failure(source)

    def __iter__(self) -> Iterator[Row]:
        return self._rows

    def sentences(self, count: int) -> Iterator[str]:
        """The next sentences. Raises `Failure` if one of them is invalid."""
        for row in islice(self._rows, count):
            self.read = row.read
            yield row.sentence
        if self.failure is not None:
            raise self.failure

    def _until_failure(self, source: Input) -> Iterator[Row]:
        try:
            for row in source.rows():
                if isinstance(row, BadRow):
                    raise Failure(f"{source.place(row)}: {row.problem}")
                yield row
        except Failure as failure:
            self.failure = failure


def _in_order(rows: _Rows, work: Work, in_flight: int) -> Iterator[tuple[list[Row], Future[Any]]]:
    """Yields batches with their pending results in the order of the input."""
    pending: deque[tuple[list[Row], Future[Any]]] = deque()
    for batch in chunks((row, size(row.sentence)) for row in rows):
        pending.append((batch, _start(work, [row.sentence for row in batch])))
        if len(pending) >= in_flight:
            yield pending.popleft()
    yield from pending


def _start(work: Work, sentences: list[str]) -> Future[Any]:
    """Runs `work` in a daemon thread, which does not delay the exit of the command."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(work(sentences))
        except BaseException as failure:
            future.set_exception(failure)

    threading.Thread(target=run, daemon=True).start()
    return future


def _result(results: Future[Any], batch: list[Row], source: Input) -> Any:
    try:
        return results.result()
    except MUSEError as error:
        if error.index is None:
            raise Failure(str(error)) from None
        _, _, problem = error.message.partition("] ")
        raise Failure(f"{source.place(batch[error.index])}: the sentence {problem}") from None


def _retained_rows(output: Union[Output, StandardOutput]) -> str:
    """The end of an error message, if the output can be resumed."""
    if not output.resumable or not output.rows:
        return ""
    done = "1 sentence is" if output.rows == 1 else f"{output.rows:,} sentences are"
    return f"; {done} done and saved: run the same command again to resume"
