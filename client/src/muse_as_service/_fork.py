"""Separates the connections of a forked process from those of its parent.

A forked process has copies of the sockets of its parent. If both used them, each could read responses to the other.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Forkable(Protocol):
    def _after_fork(self) -> object:
        """Forgets the connections and locks of the parent process, and returns the connections."""


_clients: WeakSet[Forkable] = WeakSet()
# The child neither uses nor closes the connections of its parent: their destructors could wait for locks of threads
# that do not exist in the child, or write to the connections.
_inherited: list[object] = []


def register(client: Forkable) -> None:
    """Calls `_after_fork` of the client in each forked child."""
    _clients.add(client)


def _reset() -> None:
    _inherited.extend([client._after_fork() for client in list(_clients)])


# Windows has no fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset)
