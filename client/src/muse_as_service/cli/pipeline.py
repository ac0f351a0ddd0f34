"""The pipeline of `muse embed` and `muse tokenize`: reads rows, sends them concurrently and writes results in order."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Callable, Optional

from .._workers import Workers
from ..errors import MUSEError
from . import Failure, OtherModel, Stopped
from .assembly import Assembly
from .batches import Request, Rows, requests
from .checkpoint import Item
from .counts import count
from .dedup import Distinct
from .inputs import Input, Row
from .outputs import Sink
from .progress import Progress
from .sending import Outcome, Sender

# Outputs with checkpoints are verified before each one, others this often.
VERIFY_EVERY_S = 30.0
# How long a command that ends early waits for the service, to save its last results.
LAST_VERIFY_S = 5.0
OTHER_MODEL_REMEDY = "run the same command again when the service has that model, or use --restart to start over"
# Requests that may wait for the oldest one, or for a worker, so that all workers go on if the oldest one is slow.
WAITING = 4


class NotResumable(OtherModel):
    """The results since the last checkpoint may be of another model."""


@dataclass
class Summary:
    """The result of a job."""

    rows: int
    skipped: int
    resumed: int
    """Rows that an earlier command had done."""
    seconds: float
    distinct: Optional[int]


@dataclass
class Job:
    source: Input
    output: Sink
    sender: Sender
    in_flight: int
    shard: tuple[int, int]
    skips: bool
    dedup: bool
    progress: str
    verify: Callable[[], None]
    """Raises `NotResumable` if the service has another model than at the start."""
    explain: Callable[[MUSEError], Failure]
    """The failure for an error of the service."""


def run(job: Job) -> Summary:
    """Raises `Failure` and `Stopped`."""
    job_run = _Run(job)
    try:
        return job_run.run()
    finally:
        job_run.close()


class _Run:
    def __init__(self, job: Job) -> None:
        self._job = job
        self._output = job.output
        self._rows = Rows(job.source, job.shard, job.skips)
        self._distinct = Distinct() if job.dedup else None
        self._assembly = Assembly(job.source, job.output, skips=job.skips, dedup=job.dedup)
        self._progress: Optional[Progress] = None
        self._verified = time.monotonic()

    def run(self) -> Summary:
        output, job = self._output, self._job
        try:
            if output.position.read:
                done = self._rows.first(output.position.read)
                output.skip(self._numbered(done), _name(job.source))
            resumed = output.position.rows
            self._progress = Progress(job.progress, resumed, self._rows.read)
            self._process()
            if self._rows.failure is not None:
                raise self._rows.failure
            if output.position.read == 0:
                raise Failure(self._empty())
            self._save()
            output.finish()
        except MUSEError as error:
            raise self._failure(job.explain(error)) from None
        except NotResumable:
            self._close_progress()
            raise
        except Failure as failure:
            raise self._failure(failure) from None
        except KeyboardInterrupt:
            self._close_progress()
            self._save_before_exit()
            raise Stopped(f"stopped{_saved_rows(output)}") from None
        position, distinct = output.position, self._distinct
        skipped = f", {count(position.skipped, 'row')} skipped" if position.skipped else ""
        self._progress.summary(f"{output.name}{skipped}")
        seconds = time.monotonic() - self._progress.start
        return Summary(position.rows, position.skipped, resumed, seconds, distinct.count if distinct else None)

    def _empty(self) -> str:
        name, (shard, shards) = _name(self._job.source), self._job.shard
        if shards > 1:
            return f"{name} has no row for shard {shard}/{shards}"
        return f"{name} is empty: it contains no sentences"

    def close(self) -> None:
        self._job.sender.stop()
        self._output.close()
        if self._distinct is not None:
            self._distinct.close()

    def _process(self) -> None:
        workers = Workers(self._job.in_flight)
        pending: deque[tuple[Request, Future[Outcome]]] = deque()
        for request in requests(self._rows, self._distinct):
            pending.append((request, workers.submit(partial(self._job.sender.send, request.sentences))))
            if len(pending) >= self._job.in_flight + WAITING:
                self._write(*pending.popleft())
            # Saves what is done early, if the next results take long.
            while pending and pending[0][1].done():
                self._write(*pending.popleft())
            if time.monotonic() - self._verified > VERIFY_EVERY_S:
                self._verify()
        while pending:
            self._write(*pending.popleft())

    def _write(self, request: Request, results: Future[Outcome]) -> None:
        output = self._output
        while not results.done():
            due = output.due_in()
            if not wait([results], due).done:
                self._save()
        batch, failure = self._assembly.batch(request, results.result())
        if batch.items:
            output.append(batch)
            if output.due_in() == 0:
                self._save()
        if self._progress is not None:
            self._progress.update(output.position.rows, request.items[-1].read)
        if failure is not None:
            raise failure

    def _save(self) -> None:
        """Writes a checkpoint, after the results in it are verified.

        Otherwise a later command, which starts when the service has the first model again, could not know whether the
        last results are of another one.
        """
        self._verify()
        self._output.save()

    def _verify(self) -> None:
        try:
            self._job.verify()
        except NotResumable:
            self._output.roll_back()
            raise
        self._verified = time.monotonic()

    def _save_before_exit(self) -> None:
        """Saves the last results, unless the service is away."""
        if self._output.due_in() is None:
            return
        # Ends the retries.
        self._job.sender.stop()
        verified = Workers(1).submit(self._job.verify)
        if wait([verified], LAST_VERIFY_S).done and verified.exception() is None:
            with suppress(Failure):
                self._output.save()

    def _numbered(self, items: Iterator[Item]) -> Iterator[Item]:
        """The rows that are done, whose sentences get the numbers that they had."""
        for item in items:
            if self._distinct is not None and isinstance(item, Row):
                self._distinct.number(item.sentence)
            yield item

    def _failure(self, failure: Failure) -> Failure:
        """The failure with the number of saved sentences, after the last ones are saved."""
        self._close_progress()
        self._save_before_exit()
        text = str(failure)
        if isinstance(failure, OtherModel):
            saved = _saved_rows(self._output, OTHER_MODEL_REMEDY)
            return OtherModel(f"{text}{saved or ': run the command again'}")
        # Another input cannot be resumed: the text says what to do.
        return type(failure)(text if "--restart" in text else f"{text}{_saved_rows(self._output)}")

    def _close_progress(self) -> None:
        if self._progress is not None:
            self._progress.close()


def _name(source: Input) -> str:
    return source.names[0] if len(source.names) == 1 else f"the input ({len(source.names)} files)"


def _saved_rows(output: Sink, remedy: str = "run the same command again to resume") -> str:
    """The end of an error message, if the output can be resumed."""
    if not output.resumable or not output.saved_rows:
        return ""
    verb = "is" if output.saved_rows == 1 else "are"
    return f"; {count(output.saved_rows, 'sentence')} {verb} done and saved: {remedy}"
