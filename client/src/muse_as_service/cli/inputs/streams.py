"""Byte streams of files: decompression, and formats that are recognized by their first bytes."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import os
from contextlib import ExitStack
from typing import Any, BinaryIO, Callable, Optional, cast

from .. import Failure
from ..optional import open_zstd
from .source import Source, first_line

BLOCK_BYTES = 1 << 16
MAGIC = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\x28\xb5\x2f\xfd": "zstd",
}
# Bzip2 has a second magic number after the block size, so that text that begins with BZh is not bzip2.
BZIP2_BLOCKS = (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90")
# Parallel zstd programs write a skippable frame first, whose magic number is 50 to 5f and these bytes.
SKIPPABLE_FRAME = b"\x2a\x4d\x18"
LONGEST_MAGIC = 16
OTHER_FILES = {
    b"PAR1": "Parquet: use --format parquet",
    b"ARROW1": "an Arrow file: convert it to Parquet",
    b"PK\x03\x04": "a zip archive or an Excel sheet: unpack it, or save the sheet as CSV (UTF-8)",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "an old Excel or Word file: save it as CSV (UTF-8)",
    b"\xfd7zXZ\x00": "compressed with xz: decompress it, or compress it with gzip, bzip2 or zstd",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive: unpack it",
    b"\x04\x22\x4d\x18": "compressed with lz4: decompress it, or compress it with gzip, bzip2 or zstd",
    b"%PDF-": "a PDF: extract its text",
    b"\x93NUMPY": "a numpy array",
    b"SQLite format 3\x00": "an SQLite database: export the table as CSV",
}


class Stream(io.RawIOBase):
    """A byte stream whose beginning can be inspected before it is read."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        """`read(count)` returns up to `count` bytes, none at the end."""
        self._source = read
        self._head = b""

    def peek(self, count: int) -> bytes:
        """At least `count` bytes, if there are as many, without consuming them."""
        while len(self._head) < count and (data := self._source(BLOCK_BYTES)):
            self._head += data
        return self._head

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._head:
            data = self._head[: len(buffer)]
            self._head = self._head[len(data) :]
        else:
            data = self._source(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def open_stream(source: Source, resources: ExitStack) -> Stream:
    """Opens a file for reading, and decompresses it. `resources` closes it.

    The first bytes determine the compression, so standard input and files with any name can be compressed. A file whose
    extension indicates another compression is damaged, or has the wrong name. Raises `Failure`, also while reading.
    """
    file = resources.enter_context(source.open())
    stream = Stream(lambda count: _read(file, source, count))
    head = stream.peek(LONGEST_MAGIC)
    compression = _compression(head)
    if source.compression and head and compression != source.compression:
        raise Failure(f"{source.name} is not compressed with {source.compression}, or it is damaged")
    if compression is not None:
        decompressed = resources.enter_context(_decompress(compression, stream, source))
        stream = Stream(lambda count: _read_decompressed(decompressed, source, count))
        head = stream.peek(LONGEST_MAGIC)
        if _compression(head):
            raise Failure(f"{source.name} is compressed twice: decompress it")
    for magic, what in OTHER_FILES.items():
        if head.startswith(magic):
            raise Failure(f"{source.name} is not text but {what}")
    return stream


def _compression(head: bytes) -> Optional[str]:
    for magic, compression in MAGIC.items():
        if head.startswith(magic) and (compression != "bzip2" or head[4:10] in BZIP2_BLOCKS):
            return compression
    return "zstd" if head[1:4] == SKIPPABLE_FRAME and head[0] >> 4 == 5 else None


def _read(file: io.FileIO, source: Source, count: int) -> bytes:
    try:
        data = file.read(count)
        if data is None:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    except OSError as failure:
        raise source.unreadable(failure) from None
    source.consume(len(data))
    return data


def _decompress(compression: str, stream: Stream, source: Source) -> BinaryIO:
    buffered = io.BufferedReader(stream, BLOCK_BYTES)
    if compression == "gzip":
        return cast(BinaryIO, gzip.GzipFile(fileobj=buffered))
    if compression == "bzip2":
        return cast(BinaryIO, _Bzip2(buffered.read1))
    return open_zstd(buffered, source.name)


def _read_decompressed(file: BinaryIO, source: Source, count: int) -> bytes:
    read: Callable[[int], bytes] = getattr(file, "read1", file.read)
    try:
        return read(count)
    except Failure:
        raise
    # zlib, bz2, zstd and pyarrow have exceptions of their own for invalid data.
    except Exception as failure:
        if isinstance(failure, EOFError) or str(failure).startswith("Truncated"):
            raise Failure(f"{source.name} is truncated: its compressed data ends too early") from None
        raise Failure(f"{source.name} is damaged: it cannot be decompressed ({first_line(failure)})") from None


class _Bzip2(io.RawIOBase):
    """Decompresses bzip2. `bz2.BZ2File` would ignore a damaged stream after the first one."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._decompressor: Optional[bz2.BZ2Decompressor] = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            data = b""
            if self._decompressor is None or self._decompressor.eof:
                data = (self._decompressor.unused_data if self._decompressor else b"") or self._read(BLOCK_BYTES)
                if not data:
                    return 0
                self._decompressor = bz2.BZ2Decompressor()
            elif self._decompressor.needs_input:
                data = self._read(BLOCK_BYTES)
                if not data:
                    raise EOFError
            decompressed = self._decompressor.decompress(data, len(buffer))
            if decompressed:
                buffer[: len(decompressed)] = decompressed
                return len(decompressed)
