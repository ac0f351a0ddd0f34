"""Keeps gRPC calls and forks apart.

gRPC supports a fork only while no thread is in a call. Otherwise both processes may hang or abort.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import MUSEError

MAX_WAIT_S = 30.0


class ForkGate:
    """Delays a fork until the running calls have ended, and new calls until the fork is done."""

    def __init__(self) -> None:
        self._uses_asyncio = False
        self._breaks_asyncio = False
        self._reset(broken=False)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self._before,
                after_in_parent=self._after_in_parent,
                after_in_child=self._after_in_child,
            )

    @contextmanager
    def call(self) -> Iterator[None]:
        """Within it the process does not fork. Raises `MUSEError` if gRPC cannot be used in this process."""
        if self._broken:
            text = (
                "gRPC cannot be used in this process, which was forked during long calls of other threads: "
                "start processes before the calls or with the method spawn, or use REST"
            )
            raise MUSEError(text, reason="FORKED")
        with self._changed:
            self._changed.wait_for(lambda: not self._forking)
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def check_asyncio(self) -> None:
        """Raises `MUSEError` in a child of a process that has used gRPC with asyncio, which does not support a fork."""
        if self._breaks_asyncio:
            text = (
                "gRPC with asyncio cannot be used in a forked process if its parent has used it: "
                "start processes with the method spawn, or use REST"
            )
            raise MUSEError(text, reason="FORKED")
        self._uses_asyncio = True

    def _before(self) -> None:
        # The lock is held until the fork is done; `wait_for` releases it for the running calls.
        self._changed.acquire()
        self._forking = True
        self._changed.wait_for(lambda: self._running == 0, MAX_WAIT_S)

    def _after_in_parent(self) -> None:
        self._forking = False
        self._changed.notify_all()
        self._changed.release()

    def _after_in_child(self) -> None:
        self._breaks_asyncio = self._uses_asyncio
        self._reset(broken=self._running > 0)

    def _reset(self, broken: bool) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._forking = False
        self._broken = broken


fork_gate = ForkGate()
