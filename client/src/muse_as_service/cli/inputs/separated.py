"""CSV and TSV."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import Any, Optional

from .. import Failure
from .layout import Layout
from .lines import CR_PROBLEM
from .quoting import SpacedQuotes
from .reader import LineReader, Rows
from .rows import Column

DELIMITERS = {"csv": ",", "tsv": "\t"}
DELIMITER_NAMES = {"tab": "\t", "\\t": "\t"}
NO_QUOTING = "use --no-quoting if quotation marks are ordinary characters in this file"
SPACE = f"a space before a quotation mark: remove the space, or {NO_QUOTING}"
SEVERAL_LINES = f"a quoted cell does not end in this line: use --multiline-cells if it has several, or {NO_QUOTING}"


def check_delimiter(text: str) -> str:
    """The delimiter that an option names. Raises `Failure` if it cannot be one."""
    delimiter = DELIMITER_NAMES.get(text.lower(), text)
    if len(delimiter) != 1 or delimiter in '"\r\n\0':
        raise Failure(f"the delimiter {text!r} is not one character such as ';' or tab")
    return delimiter


class Separated(LineReader):
    """A column of a CSV or TSV file."""

    def read_header(self, lines: Iterator[tuple[int, Optional[str]]]) -> Optional[list[Column]]:
        self._layout: Optional[Layout] = None
        quoting: Any = csv.QUOTE_MINIMAL if self.options.quoting else csv.QUOTE_NONE
        self._delimiter = self.options.delimiter or DELIMITERS[self.source.format]
        self._record_lines: list[str] = []
        self._last = 0
        csv.field_size_limit(self.max_line_bytes)
        self._spaced_quotes = SpacedQuotes(self._delimiter)
        self._records = csv.reader(self._feed(lines), delimiter=self._delimiter, quoting=quoting, strict=True)
        first = self._next()
        while first == []:
            first = self._next()
        # In a file without a header they may be empty cells.
        self._leading = range(0) if self.options.header else range(1, self._last - len(self._record_lines) + 1)
        self._first = None if self.options.header else first
        if first is None:
            return None
        problem = self._spaced_quote_problem()
        if problem:
            raise Failure(f"{self.source.place(self._last)}: {problem}")
        layout = self._layout = Layout(self, first, self._delimiter)
        return [Column(name) for name in layout.kept_names]

    def read_rows(self) -> Rows:
        layout = self._layout
        if layout is None:
            return
        kept = [layout.names.index(name) for name in self.kept or ()]
        record = self._next() if self._first is None else self._first
        blank: Optional[range] = self._leading or None
        while record is not None:
            number = self._last - len(self._record_lines) + 1
            if not record:
                # A blank line. In a file with one column it may be an empty cell.
                blank = range(blank.start if blank else number, number + 1)
                record = self._next()
                continue
            if blank and layout.fewest == 1:
                yield from (self.source.bad(line, self._blank_problem()) for line in blank)
            blank = None
            problem = self._spaced_quote_problem()
            if problem is None and len(record) != layout.usual:
                problem = layout.problem(record)
                if problem:
                    problem += self._quoting_advice(layout)
            if problem:
                yield self.source.bad(number, problem)
            else:
                yield self.source.row(record[layout.index], number, tuple([record[index] for index in kept]))
            record = self._next()
        if blank and layout.fewest == 1:
            yield from (self.source.bad(line, self._blank_problem()) for line in blank)

    def _feed(self, lines: Iterator[tuple[int, Optional[str]]]) -> Iterator[str]:
        """Yields lines to the parser, and collects those of the current record."""
        for number, line in lines:
            self._last = number
            if line is None:
                first = number - len(self._record_lines)
                raise Failure(f"{self.source.place(first)}: longer than {self.max_line_bytes:,} bytes")
            if self._record_lines and not self.options.multiline:
                raise Failure(f"{self.source.place(number - 1)}: {SEVERAL_LINES}")
            self._record_lines.append(line)
            yield line

    def _next(self) -> Optional[list[str]]:
        """The next record; None at the end."""
        self._record_lines.clear()
        try:
            record = next(self._records, None)
        except csv.Error as failure:
            number = self._last - len(self._record_lines) + 1
            raise Failure(f"{self.source.place(number)}: {self._csv_problem(str(failure))}") from None
        if not self.options.multiline and any("\r" in line.rstrip("\r\n") for line in self._record_lines):
            raise Failure(f"{self.source.place(self._last)}: a carriage return (CR) in a quoted cell: {SEVERAL_LINES}")
        return record

    def _csv_problem(self, message: str) -> str:
        if message.startswith("new-line character"):
            return CR_PROBLEM
        if message.startswith("unexpected end"):
            return f"the quotation mark that opens a cell has no closing one: {NO_QUOTING}"
        if message.startswith("field larger"):
            text = f"a cell of more than {self.max_line_bytes:,} bytes"
            return f"{text}, which a quotation mark opens: {NO_QUOTING}" if self.options.quoting else text
        if "expected after" in message:
            text = 'text after a closing quotation mark: write quotation marks in a quoted cell as ""'
            return f"{text}, or {NO_QUOTING}"
        return message

    def _blank_problem(self) -> str:
        if self.options.quoting:
            return 'a blank line: write an empty sentence as "", or remove the line'
        return "a blank line: remove it, or use --format text, which reads it as an empty sentence"

    def _quoting_advice(self, layout: Layout) -> str:
        """For a record with another number of cells than the header, if quotation marks may be the reason."""
        if not self.options.quoting or not any('"' in line for line in self._record_lines):
            return ""
        return f"; {NO_QUOTING}" if all(self._fits(line, layout) for line in self._record_lines) else ""

    def _spaced_quote_problem(self) -> Optional[str]:
        """For a record with a space before the quotation mark that encloses a cell."""
        return SPACE if self.options.quoting and self._spaced_quotes.occur_in(self._record_lines) else None

    def _fits(self, line: str, layout: Layout) -> bool:
        """Whether the line, read without quoting, has as many cells as the header."""
        return layout.fits(line.rstrip("\r\n").count(self._delimiter) + 1)
