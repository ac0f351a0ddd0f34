"""Parquet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import repeat
from typing import Any, NamedTuple, Union

from .. import Failure
from ..optional import pyarrow
from .reader import Reader, Rows, quoted
from .rows import BadRow, Column, Row
from .source import first_line

BATCH_ROWS = 1_024
# Without a buffer, pyarrow would read whole column chunks, which may be as large as the file.
BUFFER_BYTES = 1 << 20


class _Unreadable(NamedTuple):
    """A value that Python cannot represent."""

    problem: str


class Parquet(Reader):
    """A column of a Parquet file with strings."""

    def columns(self) -> list[Column]:
        pa = self._pyarrow()
        with self._one_line_errors(pa), self._open(pa) as file:
            return self._check(pa, file.schema_arrow)

    def rows(self) -> Rows:
        pa = self._pyarrow()
        with self._one_line_errors(pa), self._open(pa) as file:
            kept = [column.name for column in self._check(pa, file.schema_arrow)]
            yield from self._rows(file, kept)

    def _rows(self, file: Any, kept: list[str]) -> Rows:
        total, number = file.metadata.num_rows, 0
        names = list(dict.fromkeys([self.column, *kept]))
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=names):
            values = {name: _values(batch.column(batch.schema.get_field_index(name))) for name in names}
            others = zip(*(values[name] for name in kept)) if kept else repeat(())
            self.source.consume((self.source.size or 0) * len(batch) // max(1, total))
            for value, other in zip(values[self.column], others):
                number += 1
                yield self._row(number, value, other, kept)
        if number != total:
            raise Failure(f"{self.source.name} is damaged: it has {number:,} rows, where its metadata has {total:,}")

    def _row(self, number: int, value: Any, kept: tuple[Any, ...], names: list[str]) -> Union[Row, BadRow]:
        if isinstance(value, bytes):
            try:
                value = value.decode()
                if "\0" in value:
                    value = _Unreadable("zero bytes, which are not text: convert the column to UTF-8")
            except UnicodeDecodeError as failure:
                byte = value[failure.start]
                value = _Unreadable(
                    f"byte {failure.start + 1} (0x{byte:02x}) is not UTF-8: convert the column to UTF-8"
                )
        if value is None:
            return self.source.bad(number, f"{quoted(self.column)} is null, where a string is expected")
        if type(value) is _Unreadable or _Unreadable in map(type, kept):
            values = zip([self.column, *names], [value, *kept])
            problems = [f"{quoted(name)}: {found.problem}" for name, found in values if isinstance(found, _Unreadable)]
            return self.source.bad(number, problems[0])
        return self.source.row(value, number, kept)

    def _check(self, pa: Any, schema: Any) -> list[Column]:
        names = schema.names
        self.check_column(self.column, names)
        kind = _value_type(pa, schema.field(self.column).type)
        if not _is_string(pa, kind):
            text = f"the column {quoted(self.column)} has type {kind}, where strings are expected"
            raise Failure(f"{self.source.name}: {text}: convert it to strings, or choose another one with --column")
        return [Column(name, _value_type(pa, schema.field(name).type)) for name in self.kept_names(names)]

    def _pyarrow(self) -> Any:
        if self.source.path == "-":
            raise Failure("Parquet cannot be read from standard input: give the name of a file")
        if not self.source.reopenable:
            raise Failure(f"Parquet cannot be read from {self.source.name}, which is not a regular file")
        if self.source.compression:
            raise Failure(f"{self.source.name}: decompress Parquet files, which contain compressed data already")
        return pyarrow()

    def _open(self, pa: Any) -> Any:
        return pa.parquet.ParquetFile(self.source.path, buffer_size=BUFFER_BYTES, pre_buffer=False)

    @contextmanager
    def _one_line_errors(self, pa: Any) -> Iterator[None]:
        try:
            yield
        except Failure:
            raise
        except pa.ArrowInvalid as failure:
            if "Unrecognized type" in str(failure):
                text = f"has a type that pyarrow {pa.__version__} does not support: pip install --upgrade pyarrow"
                raise Failure(f"{self.source.name} {text}") from None
            raise Failure(f"{self.source.name} is not a complete Parquet file: {first_line(failure)}") from None
        except OSError as failure:
            raise self.source.unreadable(failure) from None
        # pyarrow raises KeyError, TypeError, UnicodeDecodeError and others for damaged files.
        except Exception as failure:
            text = f"{type(failure).__name__}: {first_line(failure)}"
            raise Failure(f"{self.source.name} cannot be read as Parquet ({text})") from None


def _value_type(pa: Any, kind: Any) -> Any:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_string(pa: Any, kind: Any) -> bool:
    # Types of views are new in pyarrow 16.
    names = "string", "large_string", "string_view", "binary", "large_binary", "binary_view"
    return any(getattr(pa.types, f"is_{name}", lambda _: False)(kind) for name in names)


def _values(column: Any) -> list[Any]:
    """The Python values of an Arrow column."""
    try:
        values: list[Any] = column.to_pylist()
        return values
    except (ValueError, OverflowError, UnicodeError):
        return [_value(scalar) for scalar in column]


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as failure:
        byte = failure.object[failure.start]
        return _Unreadable(f"byte {failure.start + 1} (0x{byte:02x}) is not UTF-8: convert the column to UTF-8")
    # Such as times with nanoseconds, which Python's datetime does not have.
    except (ValueError, OverflowError) as failure:
        return _Unreadable(f"a value that cannot be read: {first_line(failure)}")
