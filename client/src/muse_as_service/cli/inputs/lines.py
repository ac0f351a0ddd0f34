"""Lines of text files in any encoding."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Optional

from ..._chunking import size
from .. import Failure
from .source import Source
from .streams import BLOCK_BYTES, open_stream

# Lines of CSV and JSON contain other columns, too.
MAX_LINE_BYTES = 16 << 20
CR_PROBLEM = "a carriage return (CR) without a line feed: convert line ends, for example with tr '\\r' '\\n'"
BYTE_ORDER_MARKS = (
    # UTF-32 first: its mark begins with that of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8"),
)
LONGEST_MARK = 4
# Bytes at the beginning that are inspected for an encoding with zero bytes, if as many are available.
INSPECTED_BYTES = 4_096


def _mark(error: UnicodeError) -> tuple[str, int]:
    """Replaces invalid bytes by a surrogate, which valid text does not contain, so that their line is known.

    The standard error handler `surrogateescape` cannot do so for bytes below 128.
    """
    if not isinstance(error, UnicodeDecodeError):
        raise error
    invalid = error.object[error.start : error.end] or b"\0"
    return chr(0xDC00 + invalid[0]), max(error.end, error.start + 1)


codecs.register_error("muse.mark", _mark)


def check_encoding(name: str) -> str:
    """The standard name of an encoding. Raises `Failure` if there is none with this name."""
    try:
        # Raises LookupError for codecs of bytes such as hex, too.
        io.TextIOWrapper(io.BytesIO(), name, "muse.mark").read()
        return codecs.lookup(name).name
    except (LookupError, ValueError):
        examples = "latin-1, cp1252, shift_jis, gb18030 or utf-16"
        raise Failure(f"unknown encoding {name!r}: use the name of a Python codec, such as {examples}") from None


class Lines:
    """The lines of a file with their numbers, from 1, and their line ends. Only LF ends a line.

    A line of more than `max_bytes` is None. Iterating raises `Failure` for bytes that cannot be decoded.
    """

    def __init__(self, source: Source, encoding: Optional[str], max_bytes: int) -> None:
        self._source = source
        self._max_bytes = max_bytes
        # With the line end.
        self._limit = max_bytes + 3
        self._resources = ExitStack()
        try:
            stream = open_stream(source, self._resources)
            self._head = stream.peek(LONGEST_MARK)[:INSPECTED_BYTES]
            self.encoding = _encoding(self._head, encoding, source)
            if b"\0" in self._head and not self.encoding.startswith(("utf-16", "utf-32")):
                raise self._zero_byte(self._head.partition(b"\0")[0].count(b"\n") + 1)
            buffered = io.BufferedReader(stream, BLOCK_BYTES)
            self._text = io.TextIOWrapper(buffered, self.encoding, "muse.mark", newline="\n")
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[tuple[int, Optional[str]]]:
        number = 0
        # A character has at most four bytes.
        certainly_short = self._max_bytes // 4
        while line := self._read(number + 1):
            number += 1
            if number == 1:
                line = self._without_mark(line)
                if not line:
                    return
            if "\0" in line:
                raise self._zero_byte(number)
            if not line.isascii():
                self._check(line, number)
            if len(line) <= certainly_short or self._is_short(line):
                yield number, line
                continue
            if "\r" in line.rstrip("\r\n"):
                raise Failure(f"{self._source.place(number)}: {CR_PROBLEM}")
            while line and not line.endswith("\n"):
                line = self._read(number)
            yield number, None

    def close(self) -> None:
        self._resources.close()

    def _read(self, number: int) -> str:
        """The next line, or the beginning of one that is too long."""
        try:
            return self._text.readline(self._limit)
        except UnicodeError as failure:
            raise Failure(f"{self._source.place(number)}: not valid {self.encoding}: {failure}") from None

    def _is_short(self, line: str) -> bool:
        complete = line.endswith("\n") or len(line) < self._limit
        return complete and size(line.rstrip("\r\n")) <= self._max_bytes

    def _without_mark(self, line: str) -> str:
        if line.startswith("\ufffe"):
            raise Failure(f"{self._source.name} has the other byte order: leave out --encoding")
        return line.removeprefix("\ufeff")

    def _check(self, line: str, number: int) -> None:
        try:
            line.encode()
        except UnicodeEncodeError as failure:
            start = failure.start
            place, value = self._source.place(number), ord(line[start]) & 0xFF
            if self.encoding != "utf-8":
                text = f"character {start + 1} of it (byte 0x{value:02x}) is not {self.encoding}"
                raise Failure(f"{place}: {text}: use --encoding with the encoding of the file") from None
            text = f"byte {len(line[:start].encode()) + 1} of it (0x{value:02x}) is not UTF-8"
            advice = "convert the file to UTF-8, or use its encoding, such as --encoding latin-1 or cp1252"
            raise Failure(f"{place}: {text}: {advice}") from None

    def _zero_byte(self, number: int) -> Failure:
        likely = _encoding_with_zero_bytes(self._head)
        place = self._source.place(number)
        if likely and likely != self.encoding:
            return Failure(f"{place}: zero bytes, as in {likely.upper()}: use --encoding {likely}")
        return Failure(f"{place}: a zero byte, which is not text: remove it, or use --encoding if the file is UTF-16")


def _encoding(head: bytes, encoding: Optional[str], source: Source) -> str:
    """The encoding of a file that begins with `head`; `encoding` is that of the options."""
    marked = next((name for mark, name in BYTE_ORDER_MARKS if head.startswith(mark)), None)
    if encoding is None:
        return marked or "utf-8"
    if marked and not encoding.startswith(marked):
        raise Failure(f"{source.name} begins with the byte order mark of {marked.upper()}: leave out --encoding")
    if not marked and head and encoding in ("utf-16", "utf-32"):
        # Python would assume the byte order of this machine.
        likely = _encoding_with_zero_bytes(head) or f"{encoding}-le"
        other = likely.replace("-le", "-be") if likely.endswith("-le") else likely.replace("-be", "-le")
        text = f"{source.name} has no byte order mark: use --encoding {likely}"
        raise Failure(f"{text} or, less likely, {other}")
    return "utf-8" if encoding == "utf-8-sig" else encoding


def _encoding_with_zero_bytes(head: bytes) -> Optional[str]:
    """UTF-16 or UTF-32, if the positions of zero bytes are those of mostly ASCII text."""
    quarters = [head[position::4] for position in range(4)]
    zero = [bool(quarter) and quarter.count(0) > len(quarter) // 2 for quarter in quarters]
    found: dict[tuple[bool, ...], str] = {
        (False, True, False, True): "utf-16-le",
        (True, False, True, False): "utf-16-be",
        (False, True, True, True): "utf-32-le",
        (True, True, True, False): "utf-32-be",
    }
    return found.get(tuple(zero))
