"""Base classes of the readers of formats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Optional, Union

from .. import Failure
from ..text import printable
from .lines import MAX_LINE_BYTES, Lines
from .rows import ALL, DEFAULT_COLUMN, BadRow, Column, Options, Row
from .source import Source

SHOWN_NAMES = 20
SHOWN_CHARACTERS = 60

Rows = Iterator[Union[Row, BadRow]]


class Reader:
    """Reads a file in one format."""

    def __init__(self, source: Source, options: Options) -> None:
        self.source = source
        self.options = options
        self.column = DEFAULT_COLUMN if options.column is None else options.column
        self.all_kept = options.keep == (ALL,)
        self.kept: Optional[tuple[str, ...]] = None if self.all_kept else options.keep
        """The other columns to read, in this order. None: all, in the order of the file, until `Input` sets them."""

    def columns(self) -> Optional[list[Column]]:
        """Checks the beginning of the file, and returns its other columns. None if the file is empty."""
        raise NotImplementedError

    def rows(self) -> Rows:
        """Yields the rows. Raises `Failure` if the rest of the file cannot be read."""
        raise NotImplementedError

    def close(self) -> None:
        """Closes the file."""

    def kept_names(self, names: Sequence[str]) -> list[str]:
        """The other columns to read, of a file with the columns `names`. Raises `Failure` if one is absent."""
        if self.kept is not None:
            for name in self.kept:
                self.check_column(name, names, "--keep")
            return list(self.kept)
        others = [name for name in names if name and name != self.column]
        for name in others:
            self.check_column(name, names, "--keep")
        return others

    def check_column(self, name: str, names: Sequence[str], option: str = "--column", advice: str = "") -> None:
        """Raises `Failure` unless there is exactly one column with this name."""
        count = names.count(name)
        if count > 1:
            raise Failure(f"{self.source.name} has {count} columns named {quoted(name)}: rename all but one")
        if not count:
            text = f"{self.source.name} has no column {quoted(name)}: choose one of {list_names(names)} with {option}"
            raise Failure(text + advice)


class LineReader(Reader):
    """Reads a format of lines."""

    max_line_bytes = MAX_LINE_BYTES

    def __init__(self, source: Source, options: Options) -> None:
        super().__init__(source, options)
        self._lines: Optional[Lines] = None
        self._columns: Optional[list[Column]] = None

    def columns(self) -> Optional[list[Column]]:
        self._open()
        if self.source.reopenable:
            self.close()
        return self._columns

    def rows(self) -> Rows:
        try:
            if self._lines is None:
                self._open()
            yield from self.read_rows()
        finally:
            self.close()

    def close(self) -> None:
        if self._lines is not None:
            self._lines.close()
            self._lines = None

    def read_header(self, lines: Iterator[tuple[int, Optional[str]]]) -> Optional[list[Column]]:
        """Reads the beginning, and returns the other columns. None if the file is empty."""
        raise NotImplementedError

    def read_rows(self) -> Rows:
        """Yields the rows after the header."""
        raise NotImplementedError

    def _open(self) -> None:
        self.close()
        self._lines = Lines(self.source, self.options.encoding, self.max_line_bytes)
        try:
            self._columns = self.read_header(iter(self._lines))
        except BaseException:
            self.close()
            raise


def quoted(name: str) -> str:
    """A name in a message, in one line."""
    return f"'{_shortened(name)}'"


def list_names(names: Sequence[str]) -> str:
    """Names in a message, in one line of limited length."""
    shown = [_shown(name) for name in names[:SHOWN_NAMES]]
    if len(names) > SHOWN_NAMES:
        shown.append(f"and {len(names) - SHOWN_NAMES:,} others")
    return ", ".join(shown) or "none"


def _shown(name: str) -> str:
    text = _shortened(name)
    return text if text and text == text.strip() and "," not in text else f"'{text}'"


def _shortened(name: str) -> str:
    text = printable(name)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
