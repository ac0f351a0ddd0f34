"""Splits sentences into chunks that fit into a request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

# The service accepts 4,096 sentences, 262,144 tokens and 16 MiB in a request. A token has at least
# one byte, except for two or three that are added to each sentence and for some rare ligatures, so a
# chunk of this size is within all three limits, and the service computes it within seconds.
MAX_SENTENCES = 512
MAX_BYTES = 256_000

T = TypeVar("T")


def chunks(
    sized: Iterable[tuple[T, int]], max_sentences: int = MAX_SENTENCES, max_bytes: int = MAX_BYTES
) -> Iterator[list[T]]:
    """Groups items, given with their sizes in bytes. An item larger than `max_bytes` is a chunk of its own."""
    chunk: list[T] = []
    total = 0
    for item, size in sized:
        if chunk and (len(chunk) == max_sentences or total + size > max_bytes):
            yield chunk
            chunk, total = [], 0
        chunk.append(item)
        total += size
    if chunk:
        yield chunk


def size(sentence: str) -> int:
    """The size in bytes, encoded as UTF-8."""
    return len(sentence) if sentence.isascii() else len(sentence.encode())
