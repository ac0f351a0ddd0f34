"""Quotation marks of CSV that parsers read in different ways."""

from __future__ import annotations

import re
from collections.abc import Sequence


class SpacedQuotes:
    """Finds cells that begin with white space and a quotation mark, such as the second one of `1, "Hello"`.

    RFC 4180 has no such cells: some parsers ignore the space, others read the quotation marks as text.
    """

    def __init__(self, delimiter: str) -> None:
        mark = re.escape(delimiter)
        spaced = rf'(?:(?!{mark})[^\S\r\n])+"'
        self._candidate = re.compile(f"(?:^|{mark}){spaced}")
        quoted = rf'"(?:[^"]|"")*"[^{mark}]*'
        self._cell = re.compile(f"(?:^|{mark})(?:{quoted}|({spaced})?[^{mark}]*)")

    def occur_in(self, record: Sequence[str]) -> bool:
        """Whether the lines of a valid record contain one."""
        # Most records need no second look.
        if not any('"' in line and self._candidate.search(line) for line in record):
            return False
        return any(cell[1] for cell in self._cell.finditer("".join(record)))
