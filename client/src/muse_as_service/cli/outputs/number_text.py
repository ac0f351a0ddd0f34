"""Decimal text of vectors, computed for all numbers of a block at once.

Python formats the 512 numbers of a vector in about 0.2 ms, which is as long as the service needs for a short sentence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

# Of a number and the comma after it. Unused bytes are zero, and removed at the end.
SLOT_BYTES = 16
# The fewest digits from which every float32 can be parsed again.
FLOAT32_DIGITS = 9
FLOAT16_DIGITS = 5
# 0.00012345678 has three zeros after the point. Other numbers, of which vectors have few, are formatted one by one.
SMALLEST = 1e-4
ZEROS = 3
# Intermediate arrays remain in the cache of the processor.
BLOCK_NUMBERS = 32_768


def vector_texts(vectors: Any) -> list[bytes]:
    """JSON of each vector. Its numbers parse as the same float32 or float16."""
    if not vectors.size:
        return [b"[]"] * len(vectors)
    rows = max(1, BLOCK_NUMBERS // vectors.shape[1])
    return [text for first in range(0, len(vectors), rows) for text in _block_texts(vectors[first : first + rows])]


def _block_texts(vectors: Any) -> list[bytes]:
    count, dimension = vectors.shape
    slots = _float16_slots(vectors) if vectors.dtype.itemsize == 2 else _float32_slots(vectors)
    ends = slots.view(np.uint8).reshape(count, dimension, SLOT_BYTES)[:, -1, -1]
    ends[:] = ord("]")
    return [b"[%b]" % text for text in slots.tobytes().translate(None, b"\0").split(b"]")[:count]]


def _float32_slots(vectors: Any) -> Any:
    """An array (numbers, 2) of the two words of each slot: `-0.000dd` and `ddddddd,`."""
    values = vectors.reshape(-1).astype(np.float64)
    sizes = np.abs(values)
    unusual = np.flatnonzero(~((sizes >= SMALLEST) & (sizes < 1)))
    sizes[unusual] = 0.5
    starts, firsts, middles, lasts, factors = _tables()
    zeros = (sizes < 0.1).view(np.int8) + (sizes < 0.01).view(np.int8) + (sizes < 0.001).view(np.int8)
    # The product of two float64 has more correct digits than float32 needs.
    sizes *= factors[zeros]
    digits = np.rint(sizes, sizes).astype(np.int32)
    # numpy divides by a constant much faster than it computes a remainder.
    high = digits // np.int32(10_000)
    last = digits - high * np.int32(10_000)
    first = high // np.int32(1_000)
    middle = high - first * np.int32(1_000)
    # The second half of a table lacks zeros at the end of the number.
    short = np.flatnonzero(last == 0)
    first[short] += np.where(middle[short] == 0, 100, 0)
    middle[short] += 1_000
    zeros += np.signbit(values).view(np.int8) * np.int8(ZEROS + 1)
    slots = np.empty((len(values), 2), np.uint64)
    np.bitwise_or(starts[zeros], firsts[first], slots[:, 0])
    np.bitwise_or(middles[middle], lasts[last], slots[:, 1])
    if len(unusual):
        slots[unusual] = _other_slots(values[unusual].tolist(), FLOAT32_DIGITS)
    return slots


def _float16_slots(vectors: Any) -> Any:
    return _float16_table()[np.ascontiguousarray(vectors, np.float16).reshape(-1).view(np.uint16)]


@cache
def _float16_table() -> Any:
    return _other_slots(np.arange(1 << 16, dtype=np.uint16).view(np.float16).tolist(), FLOAT16_DIGITS)


@cache
def _tables() -> tuple[Any, Any, Any, Any, Any]:
    """The bytes of slots, at their places in a word: sign, point and zeros, then groups of two, three and four digits;
    and the factors that make an integer of nine digits, by the number of zeros."""
    starts = ["\0" * (not sign) + sign + "0." + "0" * zeros for sign in ("", "-") for zeros in range(ZEROS + 1)]
    two, three, four = ([f"{number:0{length}}" for number in range(10**length)] for length in (2, 3, 4))
    shorter_two, shorter_three, shorter_four = ([text.rstrip("0") for text in texts] for texts in (two, three, four))
    return (
        _words([text.ljust(8, "\0") for text in starts]),
        _words(["\0" * 6 + text.ljust(2, "\0") for text in [*two, *shorter_two]]),
        _words([text.ljust(8, "\0") for text in [*three, *shorter_three]]),
        _words(["\0" * 3 + text.ljust(4, "\0") + "," for text in shorter_four]),
        10.0 ** np.arange(FLOAT32_DIGITS, FLOAT32_DIGITS + ZEROS + 1),
    )


def _other_slots(values: Sequence[float], digits: int) -> Any:
    """The slots of any numbers. JSON has no number for NaN and infinity."""
    texts = (f"{value:.{digits}g}" if math.isfinite(value) else "null" for value in values)
    return _words([text.ljust(SLOT_BYTES - 1, "\0") + "," for text in texts]).reshape(-1, 2)


def _words(texts: list[str]) -> Any:
    return np.frombuffer("".join(texts).encode(), np.uint64)
