"""Numbers in messages."""

from __future__ import annotations


def count(number: int, noun: str) -> str:
    """`1 sentence`, `2,000 sentences`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def clock(seconds: float) -> str:
    """`0:01:02`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
