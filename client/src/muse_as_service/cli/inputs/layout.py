"""The columns of a CSV or TSV file, and the number of cells in its rows."""

from __future__ import annotations

from typing import Optional

from .. import Failure, counts
from .reader import Reader, quoted

OTHER_DELIMITERS = {";": "';'", "\t": "tab", "|": "'|'", ",": "','"}
NO_HEADER = ", or use --no-header if the first line is a row"


class Layout:
    """Positions of columns in the rows, according to the first line.

    Some programs end each line with a delimiter. Therefore columns without a name at the end of the header may be
    absent from rows, and rows may have more cells than the header, if these are empty in all rows.
    """

    def __init__(self, reader: Reader, first: list[str], delimiter: str) -> None:
        """`first` contains the cells of the first line, `reader` the options. Raises `Failure` for absent columns."""
        self._delimiter = delimiter
        self._has_header, self._quoting = reader.options.header, reader.options.quoting
        names = first if self._has_header else [str(number) for number in range(1, len(first) + 1)]
        self._cells = self.fewest = len(names)
        if self._has_header:
            while self.fewest > 1 and not names[self.fewest - 1]:
                self.fewest -= 1
            reader.check_column(reader.column, names, advice=self._advice(names))
            _check_number(reader, names)
        else:
            reader.column = _number(reader, names)
        self.index = names.index(reader.column)
        self.names = names
        self.kept_names = reader.kept_names(names)
        self.fewest = max(self.fewest, *(names.index(name) + 1 for name in [reader.column, *self.kept_names]))
        # Cells after the last column with a name must be empty.
        self._named = self.fewest if self._has_header else self._cells
        self._extra: Optional[int] = None if self._has_header else 0
        self.usual = len(names) if self._extra == 0 and self._named == len(names) else -1
        """The number of cells of rows that need no check. -1: each row needs one."""

    def problem(self, record: list[str]) -> Optional[str]:
        """What is wrong with the number of cells of a row."""
        count = len(record)
        if self._extra is None:
            self._extra = 0 if any(record[self._cells :]) else max(0, count - self._cells)
            self.usual = -1 if self._extra or self._named < self._cells else self._cells
        expected = self._cells + self._extra
        if self.fits(count) and not any(record[self._named :]):
            return None
        if self.fits(count) or count == expected:
            return f"a cell after column {self._named:,}, where the header ends"
        first = "the header" if self._has_header and not self._extra else "the first row"
        problem = f"{counts.count(count, 'column')}, where {first} has {expected:,}"
        if count > expected and self._quoting:
            delimiter = OTHER_DELIMITERS.get(self._delimiter, repr(self._delimiter))
            problem += f": cells that contain {delimiter} must be in quotation marks"
        return problem

    def fits(self, count: int) -> bool:
        """Whether a row may have this number of cells."""
        if self._extra:
            return count == self._cells + self._extra
        return self.fewest <= count <= self._cells

    def _advice(self, names: list[str]) -> str:
        if names[0].startswith("sep="):
            return "; remove the first line, which only Excel reads"
        if len(names) == 1:
            for character, option in OTHER_DELIMITERS.items():
                if character in names[0]:
                    return f", or use --delimiter {option}"
        return NO_HEADER


def _check_number(reader: Reader, names: list[str]) -> None:
    """Raises `Failure` if `--column 3` is the value 3 in a first line that may be a row.

    A header of numbers only is one of pandas for a table without names.
    """
    column, count = reader.column, len(names)
    if column in map(str, range(1, count + 1)) and not all(name.isdigit() for name in names):
        text = f"{quoted(column)} is a cell of the first line: use --no-header if this line is a row"
        raise Failure(f"{reader.source.name}: {text}, or rename the column")


def _number(reader: Reader, names: list[str]) -> str:
    """The number of the column with the sentences, of a file without a header."""
    text = f"{reader.source.name} has {counts.count(len(names), 'column')}"
    if reader.options.column is None:
        if len(names) > 1:
            raise Failure(f"{text}: choose one by its number with --column")
        return names[0]
    if reader.column not in names:
        number = "1" if len(names) == 1 else f"a number from 1 to {len(names)}"
        raise Failure(f"{text} without names, so --column is {number}, not {quoted(reader.column)}")
    return reader.column
