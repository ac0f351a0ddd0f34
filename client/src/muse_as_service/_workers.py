"""Threads that do not delay the exit of the process."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future
from typing import Any, Callable, Optional, TypeVar

T = TypeVar("T")

Work = tuple["Future[Any]", Callable[[], Any]]


class Workers:
    """A fixed number of daemon threads, which take work in the order of `submit`.

    Not `concurrent.futures.ThreadPoolExecutor`, for whose threads Python waits at the exit: after an error or Ctrl-C a
    thread may wait for a response until its timeout.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._queue: queue.SimpleQueue[Optional[Work]] = queue.SimpleQueue()
        for number in range(count):
            threading.Thread(target=self._run, name=f"muse_as_service-{number}", daemon=True).start()

    def submit(self, function: Callable[[], T]) -> Future[T]:
        """Executes the function in a thread. Its result, or exception, is that of the future."""
        future: Future[T] = Future()
        self._queue.put((future, function))
        return future

    def close(self) -> None:
        """Cancels work that did not begin, and ends each thread after its current work, without waiting for it."""
        try:
            while True:
                work = self._queue.get_nowait()
                if work is not None:
                    work[0].cancel()
        except queue.Empty:
            pass
        for _ in range(self._count):
            self._queue.put(None)

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            future, function = work
            try:
                future.set_result(function())
            except BaseException as failure:
                future.set_exception(failure)
            # The next work may come much later.
            del work, future, function
