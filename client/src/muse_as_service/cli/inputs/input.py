"""The rows of several files in a row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Optional, Union

from .. import Failure
from ..text import printable
from .files import find_files
from .jsonlines import JsonLines
from .lines import check_encoding
from .parquet import Parquet
from .reader import Reader, quoted
from .rows import ALL, BadRow, Column, Options, Row
from .separated import Separated, check_delimiter
from .source import Source
from .text import Text

READERS: dict[str, type[Reader]] = {
    "text": Text, "csv": Separated, "tsv": Separated, "jsonl": JsonLines, "parquet": Parquet,
}  # fmt: skip


class Input:
    """The sentences of files, in their order."""

    def __init__(self, readers: list[Reader]) -> None:
        """Checks the beginning of all files. Raises `Failure`."""
        self._readers = readers
        self.names = [reader.source.name for reader in readers]
        """Names in messages."""
        self.paths = [reader.source.path for reader in readers]
        """Paths; `-` is standard input."""
        self._columns = self._check_columns()

    @property
    def name(self) -> str:
        """The name of the first file, and the number of the others."""
        others = len(self.names) - 1
        return self.names[0] if not others else f"{self.names[0]} and {others:,} other{'s' if others > 1 else ''}"

    def columns(self) -> list[Column]:
        """The columns whose values are `Row.kept`."""
        return self._columns

    def rows(self) -> Iterator[Union[Row, BadRow]]:
        """Yields the rows of all files. Raises `Failure` if the rest cannot be read."""
        try:
            for reader in self._readers:
                yield from reader.rows()
        finally:
            self.close()

    def close(self) -> None:
        """Closes pipes that are open already. `rows` does so, too."""
        for reader in self._readers:
            reader.close()

    def place(self, row: Union[Row, BadRow]) -> str:
        """The file and the line or row, such as `a.csv, line 3`."""
        return self._readers[row.source].source.place(row.place)

    def _check_columns(self) -> list[Column]:
        """The columns that all files have. Raises `Failure` if one has others. Files without any row have none."""
        first: Optional[Reader] = None
        common: list[Column] = []
        for reader in self._readers:
            columns = reader.columns()
            if columns is None:
                continue
            if first is None:
                first, common = reader, columns
            _compare(first, common, reader, columns)
        names = tuple(column.name for column in common)
        for reader in self._readers:
            reader.kept = names
        return common


def open_inputs(names: Sequence[str], options: Options) -> Input:
    """Finds the files that names, patterns and folders denote, and checks their beginnings. Raises `Failure`."""
    files = find_files(names, options.format)
    formats = {file.format for file in files}
    _check_options(options, formats, next((file.path for file in files if file.format == "text"), None))
    if options.encoding is not None:
        options = options._replace(encoding=check_encoding(options.encoding))
    if options.delimiter is not None:
        options = options._replace(delimiter=check_delimiter(options.delimiter))
    sources = [Source(file, index) for index, file in enumerate(files)]
    sizes = [source.size for source in sources]
    total = None if None in sizes else sum(size or 0 for size in sizes)
    before = 0
    for source in sources:
        source.is_part_of(before, total)
        before += source.size or 0
    return Input([READERS[source.format](source, options) for source in sources])


def _check_options(options: Options, formats: set[str], text: Optional[str]) -> None:
    """Raises `Failure` for options that do not apply to any file, or of which a text file has nothing."""
    for option, value in ("--column", options.column), ("--keep", options.keep):
        if value not in (None, ()) and text is not None:
            name = "standard input" if text == "-" else printable(text)
            advice = "use --format" if text == "-" else f"leave out {option}, or use --format"
            raise Failure(f"{name} is read as text, which has no columns for {option}: {advice}")
    if options.multiline and not options.quoting:
        raise Failure("--multiline-cells and --no-quoting exclude each other: only quoted cells have several lines")
    if ALL in options.keep and len(options.keep) > 1:
        raise Failure(f"--keep lists columns, or is '{ALL}' for all of them")
    for name in options.keep:
        if options.keep.count(name) > 1:
            raise Failure(f"--keep lists the column {quoted(name)} twice")
    if not formats & {"csv", "tsv"}:
        given = {"--delimiter": options.delimiter is not None, "--no-header": not options.header}
        given |= {"--no-quoting": not options.quoting, "--multiline-cells": options.multiline}
        for option in (option for option, used in given.items() if used):
            raise Failure(f"{option} applies to CSV and TSV, not to {', '.join(sorted(formats))}")
    if options.encoding is not None and formats == {"parquet"}:
        raise Failure("--encoding does not apply to Parquet")


def _compare(first: Reader, common: list[Column], other: Reader, columns: list[Column]) -> None:
    """Raises `Failure` if two files have different columns."""
    types = {column.name: column.arrow_type for column in columns}
    for column in common:
        if column.name not in types:
            raise _absent(other, column.name, first)
        if column.arrow_type != types[column.name]:
            here, there = types[column.name] or "not typed", column.arrow_type or "not typed"
            text = f"the column {quoted(column.name)} is {here}, but {there} in {first.source.name}"
            raise Failure(f"{other.source.name}: {text}: convert one of them, or leave the column out of --keep")
    for name in types.keys() - {column.name for column in common}:
        raise _absent(first, name, other)


def _absent(reader: Reader, name: str, other: Reader) -> Failure:
    text = f"{reader.source.name} has no column {quoted(name)}, which {other.source.name} has"
    return Failure(f"{text}: list the columns of both with --keep")
