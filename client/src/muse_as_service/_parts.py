"""Cuts sentences into parts that fit into a request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

# The service accepts 4,096 sentences, 262,144 tokens and 16 MiB in a request. A token has at least a byte (but for the
# two or three that are added to each sentence, and for some rare ligatures), so that a part of this size is within all
# three, and is answered within seconds.
MAX_SENTENCES = 512
MAX_BYTES = 256_000

T = TypeVar("T")


def parts(
    sized: Iterable[tuple[T, int]], max_sentences: int = MAX_SENTENCES, max_bytes: int = MAX_BYTES
) -> Iterator[list[T]]:
    """Gathers items, given with their sizes in bytes. One that is larger than a part is a part by itself."""
    part: list[T] = []
    total = 0
    for item, size in sized:
        if part and (len(part) == max_sentences or total + size > max_bytes):
            yield part
            part, total = [], 0
        part.append(item)
        total += size
    if part:
        yield part


def size(sentence: str) -> int:
    """Bytes of UTF-8."""
    return len(sentence) if sentence.isascii() else len(sentence.encode())


def check(sentences: Iterable[str]) -> list[str]:
    """The sentences as a list.

    Raises `TypeError` where something is no string, and `ValueError` where one cannot be written as UTF-8.
    """
    if isinstance(sentences, (str, bytes)):
        raise TypeError("sentences must be a list of strings, not one string: write [sentence]")
    checked = list(sentences)
    for index, sentence in enumerate(checked):
        if not isinstance(sentence, str):
            raise TypeError(f"sentences[{index}] must be a string, not {type(sentence).__name__}")
        if not sentence.isascii():
            try:
                sentence.encode()
            except UnicodeEncodeError as failure:
                where = f"character {failure.start} of sentences[{index}]"
                raise ValueError(f"{where} is half of a surrogate pair, which is no text: remove it") from None
    return checked
