"""Rows of an input, and the options that select them."""

from __future__ import annotations

from typing import Any, NamedTuple, Optional

# In `Options.keep`: all other columns.
ALL = "*"
DEFAULT_COLUMN = "sentence"


class Options(NamedTuple):
    """How files are read."""

    column: Optional[str] = None
    """Column or field with the sentences; without a header its number, from 1. None: `sentence`."""
    format: Optional[str] = None
    """One of the values of `FORMATS`. None: the file extension determines it."""
    encoding: Optional[str] = None
    """Name of a Python codec. None: UTF-8, or what a byte order mark indicates."""
    delimiter: Optional[str] = None
    """Of CSV and TSV: one character, or `tab`."""
    header: bool = True
    """Whether the first line of CSV and TSV files contains the names of the columns."""
    quoting: bool = True
    """Whether quotation marks enclose cells of CSV and TSV files; else they are ordinary characters."""
    multiline: bool = False
    """Whether cells of CSV and TSV files may have several lines. By default they may not, because quotation marks that
    are ordinary characters join rows."""
    keep: tuple[str, ...] = ()
    """Names of other columns to read; `("*",)` for all others."""


class Row(NamedTuple):
    """A sentence and the values of the other columns."""

    sentence: str
    place: int
    """Number of the line or row within its file, from 1."""
    read: Optional[float]
    """Fraction of all inputs that is read up to here, if known."""
    kept: tuple[Any, ...] = ()
    """Python values of the columns of `Input.columns`, in that order."""
    source: int = 0
    """Index of the file in `Input.names`."""


class BadRow(NamedTuple):
    """A row without a valid sentence; the rows after it can be read."""

    place: int
    read: Optional[float]
    problem: str
    source: int = 0


class Column(NamedTuple):
    """A column other than that of the sentences."""

    name: str
    arrow_type: Optional[Any] = None
    """The `pyarrow.DataType` of a Parquet column. None for CSV, whose values are strings, and for JSON lines, whose
    values are of any JSON type and None if the field is absent."""
