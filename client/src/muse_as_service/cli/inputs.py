"""Reads sentences from files of any size, one at a time."""

from __future__ import annotations

import csv
import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Optional

from . import Failure
from .optional import pyarrow

FORMATS = {
    ".txt": "text",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
# The service accepts sentences of up to 262,144 bytes; a line of CSV or JSON contains other columns, too.
MAX_TEXT_LINE_BYTES = 262_144
MAX_LINE_BYTES = 16 << 20


class Row(NamedTuple):
    sentence: str
    place: int
    """Number of the line or row, from 1."""
    read: Optional[float]
    """Fraction of the input that is read up to here, if known."""


class Input:
    """The sentences of a file or of standard input (`-`)."""

    unit = "line"

    def __init__(self, name: str, column: str) -> None:
        self.name = "standard input" if name == "-" else name
        self._path = name
        self._column = column

    def rows(self) -> Iterator[Row]:
        """Yields the sentences. Raises `Failure` with the number of the first invalid line."""
        raise NotImplementedError

    def place(self, number: int) -> str:
        return f"{self.name}, {self.unit} {number}"

    def _no_column(self, columns: list[str]) -> Failure:
        names = ", ".join(columns)
        return Failure(f"{self.name} has no column '{self._column}': choose one of {names} with --column")


def open_input(name: str, kind: Optional[str], column: str) -> Input:
    """Opens an input. If `kind` is None, the file extension determines the format."""
    if kind is None:
        kind = "text" if name == "-" else FORMATS.get(Path(name).suffix.lower())
    if kind is None:
        known = ", ".join(FORMATS)
        raise Failure(f"cannot determine the format of {name} from its extension ({known}): use --format")
    readers: dict[str, type[Input]] = {
        "text": Text, "csv": Csv, "tsv": Tsv, "jsonl": JsonLines, "parquet": Parquet,
    }  # fmt: skip
    return readers[kind](name, column)


class Lines(Input):
    """Base class of the formats that are read line by line."""

    max_line_bytes = MAX_LINE_BYTES

    def rows(self) -> Iterator[Row]:
        try:
            with self._open() as file:
                status = os.fstat(file.fileno())
                self._size = status.st_size if stat.S_ISREG(status.st_mode) else 0
                self._read = 0
                yield from self._rows(self._lines(file))
        except OSError as failure:
            raise Failure(f"cannot read {self.name}: {failure.strerror}") from None

    def _rows(self, lines: Iterator[tuple[int, str]]) -> Iterator[Row]:
        raise NotImplementedError

    def _open(self) -> BinaryIO:
        if self._path == "-":
            return os.fdopen(os.dup(sys.stdin.fileno()), "rb")
        return Path(self._path).open("rb")

    def _lines(self, file: BinaryIO) -> Iterator[tuple[int, str]]:
        """Yields each line with its number; lines include the line ending."""
        number = 0
        while line := file.readline(self.max_line_bytes + 3):
            number += 1
            self._read += len(line)
            if len(line.rstrip(b"\r\n")) > self.max_line_bytes:
                text = f"longer than {self.max_line_bytes:,} bytes: split it into several sentences"
                raise Failure(f"{self.place(number)}: {text}")
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as failure:
                text = f"byte {failure.start + 1} of it (0x{line[failure.start]:02x}) is not UTF-8"
                raise Failure(f"{self.place(number)}: {text}: convert the file to UTF-8") from None

    def _row(self, sentence: object, number: int) -> Row:
        if not isinstance(sentence, str):
            text = f"'{self._column}' is {json.dumps(sentence)[:40]}, where a string is expected"
            raise Failure(f"{self.place(number)}: {text}")
        try:
            sentence.encode()
        except UnicodeEncodeError:
            text = "an unpaired surrogate (\\ud800 to \\udfff), which is not text: remove it"
            raise Failure(f"{self.place(number)}: {text}") from None
        return Row(sentence, number, self._read / self._size if self._size else None)


class Text(Lines):
    """A sentence per line. An empty line is a sentence, too, so that results and lines have the same numbers."""

    max_line_bytes = MAX_TEXT_LINE_BYTES

    def _rows(self, lines: Iterator[tuple[int, str]]) -> Iterator[Row]:
        for number, line in lines:
            yield self._row(line.removesuffix("\n").removesuffix("\r"), number)


class Csv(Lines):
    """A column of a CSV file with a header."""

    delimiter = ","

    def _rows(self, lines: Iterator[tuple[int, str]]) -> Iterator[Row]:
        csv.field_size_limit(self.max_line_bytes)
        records = csv.reader((line for _, line in lines), delimiter=self.delimiter, strict=True)
        number = 1
        try:
            header = next(records, None)
            if header is None:
                return
            if self._column not in header:
                raise self._no_column(header)
            index = header.index(self._column)
            number = records.line_num + 1
            for record in records:
                if record and len(record) <= index:
                    text = f"{len(record)} columns, where the header has {len(header)}"
                    raise Failure(f"{self.place(number)}: {text}")
                if record:
                    yield self._row(record[index], number)
                number = records.line_num + 1
        except csv.Error as failure:
            raise Failure(f"{self.place(number)}: {failure}") from None


class Tsv(Csv):
    """CSV with tabs as delimiters."""

    delimiter = "\t"


class JsonLines(Lines):
    """On each line an object with the sentence in a field, or a string."""

    def _rows(self, lines: Iterator[tuple[int, str]]) -> Iterator[Row]:
        for number, line in lines:
            if line.isspace():
                continue
            try:
                value = json.loads(line)
            except ValueError as failure:
                raise Failure(f"{self.place(number)}: not JSON: {failure}") from None
            if isinstance(value, dict):
                if self._column not in value:
                    names = ", ".join(value) or "none"
                    text = f"no field '{self._column}': choose one of {names} with --column"
                    raise Failure(f"{self.place(number)}: {text}")
                value = value[self._column]
            yield self._row(value, number)


class Parquet(Input):
    """A string column of a Parquet file."""

    unit = "row"

    def rows(self) -> Iterator[Row]:
        pa = pyarrow()
        if self._path == "-":
            raise Failure("Parquet cannot be read from standard input: give the name of a file")
        try:
            with pa.parquet.ParquetFile(self._path) as file:
                yield from self._rows(pa, file)
        except pa.ArrowInvalid as failure:
            raise Failure(f"{self.name} is not a complete Parquet file: {_first_line(failure)}") from None
        except OSError as failure:
            raise Failure(f"cannot read {self.name}: {failure.strerror or _first_line(failure)}") from None

    def _rows(self, pa: Any, file: Any) -> Iterator[Row]:
        schema = file.schema_arrow
        if self._column not in schema.names:
            raise self._no_column(schema.names)
        kind = schema.field(self._column).type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise Failure(f"{self.name}: the column '{self._column}' has type {kind}, where strings are expected")
        total, number = file.metadata.num_rows, 0
        for batch in file.iter_batches(batch_size=4_096, columns=[self._column]):
            for value in batch.column(0):
                number += 1
                try:
                    sentence = value.as_py()
                except UnicodeDecodeError:
                    raise Failure(f"{self.place(number)}: not UTF-8") from None
                if sentence is None:
                    raise Failure(f"{self.place(number)}: '{self._column}' is null, where a string is expected")
                yield Row(sentence, number, number / total)


def _first_line(failure: BaseException) -> str:
    return str(failure).partition("\n")[0]
