"""Standard output and standard error that may be closed, full or gone."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any


def reopen_closed() -> None:
    """Opens /dev/null in place of standard streams that the caller has closed (`2>&-`).

    Otherwise the next file that the command opens becomes its standard error, and messages overwrite its content.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free descriptor, which is this one. It stays open.
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        # Python has none for a closed stream, and print(file=None) writes to standard output.
        sys.stderr = os.fdopen(os.dup(2), "w")


def discard(descriptor: int) -> None:
    """Discards what is written to a descriptor from now on, as well as what Python has buffered for it.

    Python exits with status 120 if it cannot flush a standard stream.
    """
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)


class StandardError:
    """Standard error as a file. Text that cannot be written is discarded, because it must not end a command: the
    terminal may be gone, the disk full or the reader of the pipe dead."""

    def write(self, text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except (OSError, ValueError):
            with suppress(OSError):
                discard(2)

    def flush(self) -> None:
        """Does nothing: `write` flushes."""

    def isatty(self) -> bool:
        try:
            return sys.stderr.isatty()
        except ValueError:
            return False

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


def print_error(text: str) -> None:
    """Prints a line on standard error."""
    StandardError().write(f"{text}\n")
