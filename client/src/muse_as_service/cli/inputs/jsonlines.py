"""JSON lines: an object or a string per line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any, Optional, Union

from .. import Failure
from ..text import printable
from .lines import CR_PROBLEM
from .reader import LineReader, Rows, list_names, quoted
from .rows import BadRow, Column, Row

BLANK = " \t\r\n"
# Fields are optional in JSON lines. The first lines determine which ones a file has.
SAMPLED_LINES = 1_000
SAMPLED_CHARACTERS = 1 << 24
# json accepts escaped surrogates without their pair, which are not text.
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class JsonLines(LineReader):
    """On each line an object with the sentence in a field, or a string. Blank lines are ignored."""

    def read_header(self, lines: Iterator[tuple[int, Optional[str]]]) -> Optional[list[Column]]:
        filled = ((number, line) for number, line in lines if line is None or line.strip(BLANK))
        head = _head(filled, SAMPLED_LINES if self.kept != () else 1)
        self._filled = chain(head, filled)
        if not head:
            return None
        self._reject_other_json(*head[0])
        self._names = self._kept_fields(head)
        return [Column(name) for name in self._names]

    def read_rows(self) -> Rows:
        if self.kept is not None:
            self._names = list(self.kept)
        self._quoted_names = [f'"{name}"' for name in (self.column, *self._names)]
        for number, line in self._filled:
            yield self._row(number, line)

    def _row(self, number: int, line: Optional[str]) -> Union[Row, BadRow]:
        if line is None:
            return self.source.bad(number, f"longer than {self.max_line_bytes:,} bytes")
        try:
            value = _parse(line) if self._may_repeat(line) else json.loads(line)
        except (ValueError, RecursionError) as failure:
            return self.source.bad(number, _problem(line, failure))
        kept: tuple[Any, ...] = (None,) * len(self._names)
        if isinstance(value, dict):
            problem = self._field_problem(value)
            if problem:
                return self.source.bad(number, problem)
            kept = tuple(map(value.get, self._names))
            value = value[self.column]
            if not isinstance(value, str):
                problem = f"{quoted(self.column)} is {_description(value)}, where a string is expected"
        elif not isinstance(value, str):
            problem = f"{_description(value)}, where an object with the field {quoted(self.column)} is expected"
        else:
            problem = None
        if problem is None and SURROGATE.search(line) and not _is_text((value, kept)):
            problem = "an unpaired surrogate (\\ud800 to \\udfff), which is not text: remove it"
        return self.source.bad(number, problem) if problem else self.source.row(value, number, kept)

    def _may_repeat(self, line: str) -> bool:
        """Whether a field that is read may occur twice. The parser that detects it takes twice as long."""
        return "\\" in line or any(line.count(name) > 1 for name in self._quoted_names)

    def _field_problem(self, value: dict[str, Any]) -> Optional[str]:
        if self.column not in value:
            return f"no field {quoted(self.column)}: choose one of {list_names(list(value))} with --column"
        if isinstance(value, _Repeated):
            for name in self.column, *self._names:
                if name in value.repeated:
                    return f"several fields named {quoted(name)}: rename all but one"
        if self.all_kept:
            unknown = {name for name in value if name} - {self.column, *self._names}
            if unknown:
                name = min(unknown)
                return f"a field {quoted(name)}, which no line before has: list the fields to keep with --keep"
        return None

    def _kept_fields(self, head: list[tuple[int, Optional[str]]]) -> list[str]:
        # A field may be absent from a file, but not from the first one: it may be misspelt.
        if self.kept is not None and (not self.kept or self.source.index):
            return list(self.kept)
        fields: dict[str, None] = {}
        for _, line in head:
            try:
                value = _parse(line or "")
            except (ValueError, RecursionError):
                # An error of its row.
                continue
            if isinstance(value, dict) and _is_text(list(value)):
                fields.update(dict.fromkeys(value))
        return self.kept_names(list(fields))

    def _reject_other_json(self, number: int, line: Optional[str]) -> None:
        """Raises `Failure` if the first line is not the first of JSON lines."""
        start = (line or "").strip(BLANK)
        if start.startswith("["):
            text = "a JSON array, where an object per line is expected: convert it, for example with jq -c '.[]'"
        elif start == "{":
            text = "an object in several lines: convert it to one per line, for example with jq -c ."
        elif "\r" in start and not _is_json(start):
            # All lines of the file may end with CR.
            text = CR_PROBLEM
        else:
            return
        raise Failure(f"{self.source.place(number)}: {text}")


def _head(lines: Iterator[tuple[int, Optional[str]]], count: int) -> list[tuple[int, Optional[str]]]:
    """The first lines: up to `count`, and of limited length."""
    head: list[tuple[int, Optional[str]]] = []
    characters = 0
    for number, line in islice(lines, count):
        head.append((number, line))
        characters += len(line or "")
        if characters > SAMPLED_CHARACTERS:
            break
    return head


class _Repeated(dict[str, Any]):
    """An object with several fields of the same name, which JSON permits and Python reduces to the last one."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        seen: set[str] = set()
        self.repeated = {name for name, _ in pairs if name in seen or seen.add(name)}  # type: ignore[func-returns-value]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    return value if len(value) == len(pairs) else _Repeated(pairs)


_decoder = json.JSONDecoder(object_pairs_hook=_object)


def _parse(line: str) -> Any:
    return _decoder.decode(line)


def _is_json(line: str) -> bool:
    try:
        _parse(line)
        return True
    except (ValueError, RecursionError):
        return False


def _problem(line: str, failure: Exception) -> str:
    if isinstance(failure, RecursionError):
        return "not JSON that can be read: it is nested too deeply"
    if "\r" in line.strip(BLANK):
        return f"not JSON: {CR_PROBLEM}"
    if isinstance(failure, json.JSONDecodeError):
        return f"not JSON: {failure.msg} (column {failure.colno})"
    return f"not JSON that can be read: {printable(str(failure))}"


def _description(value: Any) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    return json.dumps(value)[:40]


def _is_text(value: Any) -> bool:
    """Whether all strings in a JSON value are text."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
        return True
    except UnicodeEncodeError:
        return False
