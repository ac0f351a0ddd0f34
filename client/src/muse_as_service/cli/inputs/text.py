"""Text: a sentence per line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Optional

from .. import Failure
from .lines import CR_PROBLEM
from .reader import LineReader, Rows
from .rows import Column
from .source import MAX_SENTENCE_BYTES, TOO_LONG


class Text(LineReader):
    """A sentence per line. An empty line is a sentence, too, so that results and lines have the same numbers."""

    max_line_bytes = MAX_SENTENCE_BYTES

    def read_header(self, lines: Iterator[tuple[int, Optional[str]]]) -> list[Column]:
        self._numbered_lines = lines
        return []

    def read_rows(self) -> Rows:
        for number, line in self._numbered_lines:
            if line is None:
                yield self.source.bad(number, TOO_LONG)
                continue
            sentence = line.removesuffix("\n").rstrip("\r")
            if "\r" not in sentence:
                yield self.source.row(sentence, number)
            elif number == 1:
                # All lines of the file may end with CR.
                raise Failure(f"{self.source.place(number)}: {CR_PROBLEM}")
            else:
                yield self.source.bad(number, CR_PROBLEM)
