"""A file of an input: its name in messages, its size, and how much of it is read."""

from __future__ import annotations

import io
import os
import stat
import sys
from typing import Any, Optional, Union

from ..._chunking import size
from .. import Failure
from ..text import printable
from .files import File
from .rows import BadRow, Row

# The service accepts sentences of up to 262,144 bytes.
MAX_SENTENCE_BYTES = 262_144
TOO_LONG = f"longer than {MAX_SENTENCE_BYTES:,} bytes: split it into several sentences"


class Source:
    """A file, or standard input. Makes rows with its index and the fraction of all inputs that is read."""

    def __init__(self, file: File, index: int) -> None:
        self.path, self.format, self.compression = file
        self.index = index
        self.name = "standard input" if self.path == "-" else printable(self.path)
        self.unit = "row" if self.format == "parquet" else "line"
        self.read: Optional[float] = None
        """Fraction of all inputs that is read, if known."""
        self._consumed = 0
        status = self._status()
        regular = stat.S_ISREG(status.st_mode)
        self.size = status.st_size - self._position() if regular else None
        self.reopenable = regular and self.path != "-"
        """Whether the file can be read twice. Pipes and standard input cannot."""
        self._before, self._total = 0, self.size

    def is_part_of(self, before: int, total: Optional[int]) -> None:
        """Sets the bytes of the inputs before this one, and of all inputs if known."""
        self._before, self._total = before, total

    def consume(self, count: int) -> None:
        """Counts bytes that are read; of compressed files, before decompression."""
        self._consumed += count
        if self._total and self.size is not None:
            self.read = (self._before + min(self._consumed, self.size)) / self._total

    def place(self, number: int) -> str:
        return f"{self.name}, {self.unit} {number}"

    def row(self, sentence: str, number: int, kept: tuple[Any, ...] = ()) -> Union[Row, BadRow]:
        # A character has at most four bytes.
        if len(sentence) > MAX_SENTENCE_BYTES // 4 and size(sentence) > MAX_SENTENCE_BYTES:
            return self.bad(number, TOO_LONG)
        return Row(sentence, number, self.read, kept, self.index)

    def bad(self, number: int, problem: str) -> BadRow:
        return BadRow(number, self.read, problem, self.index)

    def open(self) -> io.FileIO:
        """Opens the file, unbuffered."""
        self._consumed = 0
        try:
            return io.FileIO(os.dup(_standard_input()) if self.path == "-" else self.path)
        except OSError as failure:
            raise self.unreadable(failure) from None

    def unreadable(self, failure: BaseException) -> Failure:
        reason = getattr(failure, "strerror", None) or first_line(failure)
        return Failure(f"cannot read {self.name}: {reason}")

    def _position(self) -> int:
        """Bytes of standard input that another process has read."""
        return os.lseek(_standard_input(), 0, os.SEEK_CUR) if self.path == "-" else 0

    def _status(self) -> os.stat_result:
        try:
            return os.fstat(_standard_input()) if self.path == "-" else os.stat(self.path)  # noqa: PTH116
        except (OSError, ValueError) as failure:
            raise self.unreadable(failure) from None


def _standard_input() -> int:
    if sys.stdin is None:
        raise Failure("cannot read standard input: it is closed")
    return sys.stdin.fileno()


def first_line(failure: BaseException) -> str:
    """The message of an exception of a library, in one line."""
    return printable(str(failure).partition("\n")[0]) or type(failure).__name__
