"""Reads sentences from files of any size, one row at a time."""

from __future__ import annotations

from .files import COMPRESSIONS, FORMATS
from .input import Input, open_inputs
from .rows import ALL, DEFAULT_COLUMN, BadRow, Column, Options, Row

__all__ = [
    "ALL",
    "COMPRESSIONS",
    "DEFAULT_COLUMN",
    "FORMATS",
    "BadRow",
    "Column",
    "Input",
    "Options",
    "Row",
    "open_inputs",
]
