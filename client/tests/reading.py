"""Reads inputs as the command does, for tests of the readers."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Union

from muse_as_service.cli import Failure
from muse_as_service.cli.inputs import BadRow, Options, open_inputs


class Bad(NamedTuple):
    """Expects a row that cannot be embedded, with a message that contains `text`."""

    text: str


class Rejected(NamedTuple):
    """Expects a `Failure` with a message that contains `text`."""

    text: str


Expected = Union[Rejected, Sequence[Union[str, Bad]]]


class Case(NamedTuple):
    """A file and what reading it results in."""

    name: str
    content: Union[bytes, str]
    expected: Expected
    options: dict[str, Any] = {}  # noqa: RUF012 - not changed

    @property
    def id(self) -> str:
        return self.name

    def check(self, folder: Path) -> None:
        path = folder / self.name
        path.write_bytes(self.content.encode() if isinstance(self.content, str) else self.content)
        check(path, self.expected, **self.options)


def check(path: Path, expected: Expected, **options: Any) -> None:
    """Asserts what reading a file results in, and that messages name it and have one line."""
    read = reading([str(path)], **options)
    if isinstance(expected, Rejected):
        assert read and isinstance(read[-1], Failure), f"is read: {read[:5]}"
        message = str(read[-1])
        assert expected.text in message and path.name in message, message
        assert_one_line(message)
        return
    assert not read or not isinstance(read[-1], Failure), f"is rejected: {read[-1]}"
    assert len(read) == len(expected), read
    for item, wanted in zip(read, expected):
        if isinstance(wanted, Bad):
            assert isinstance(item, str) and item.startswith("BAD ") and wanted.text in item, item
            assert_one_line(item)
        else:
            assert item == wanted


def reading(names: list[str], **options: Any) -> list[Union[str, Failure]]:
    """The sentences, bad rows as `BAD place: problem`, and at the end the failure if there is one."""
    read: list[Union[str, Failure]] = []
    try:
        source = open_inputs(names, Options(**options))
        for row in source.rows():
            read.append(f"BAD {source.place(row)}: {row.problem}" if isinstance(row, BadRow) else row.sentence)
    except Failure as failure:
        read.append(failure)
    return read


def assert_one_line(message: str) -> None:
    assert message.isprintable() and len(message) < 1_500, repr(message)


def json_line(sentence: str) -> str:
    return json.dumps({"id": 1, "sentence": sentence}, ensure_ascii=False) + "\n"


def parquet_bytes(columns: Any) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), buffer)
    return buffer.getvalue()
