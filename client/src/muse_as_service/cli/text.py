"""The text of values in the output of commands."""

from __future__ import annotations

from datetime import datetime
from typing import Optional


def print_columns(*columns: str) -> None:
    """Prints a line of columns, separated by tabs."""
    print("\t".join(map(printable, columns)))


def time_text(time: Optional[datetime]) -> str:
    """A time in UTC; empty for None."""
    return f"{time:%Y-%m-%dT%H:%M:%SZ}" if time else ""


def printable(text: str) -> str:
    """Escapes characters that are not visible or change the direction of text."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )
