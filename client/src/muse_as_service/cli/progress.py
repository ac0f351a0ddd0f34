"""Progress on standard error."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import Optional

LINE_EVERY_S = 5.0
DRAW_EVERY_S = 0.1


class Progress:
    """A progress bar on a terminal, else a line every few seconds."""

    def __init__(self, done: int, read: Optional[float]) -> None:
        """An earlier command has done `done` sentences, the fraction `read` of the input."""
        self._terminal = sys.stderr.isatty()
        self._start = time.monotonic()
        self._shown = self._start if not self._terminal else 0.0
        self._done_at_start = self._done = done
        self._read_at_start = read

    def update(self, done: int, read: Optional[float]) -> None:
        """Reports that `done` sentences, the fraction `read` of the input, are done."""
        self._done = done
        now = time.monotonic()
        if now - self._shown < (DRAW_EVERY_S if self._terminal else LINE_EVERY_S):
            return
        self._shown = now
        text = f"{self._done:,} sentences, {self._rate():,.0f}/s"
        if read is not None:
            text = f"{100 * read:3.0f}% {text}, {_clock(self._left(read))} left"
        if self._terminal:
            self._draw(text, read)
        else:
            print(text, file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Erases the bar."""
        if self._terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def end(self, output: Path) -> None:
        """Prints the summary."""
        self.clear()
        took = f"{_clock(time.monotonic() - self._start)} ({self._rate():,.0f}/s)"
        print(f"{self._done:,} sentences in {took}: {output}", file=sys.stderr, flush=True)

    def _draw(self, text: str, read: Optional[float]) -> None:
        columns = shutil.get_terminal_size().columns
        width = min(40, columns - len(text) - 4)
        if read is not None and width >= 10:
            filled = int(width * read)
            text = f"{text[:4]} [{'#' * filled}{'.' * (width - filled)}]{text[4:]}"
        print(f"\r\x1b[K{text[: columns - 1]}", end="", file=sys.stderr, flush=True)

    def _rate(self) -> float:
        return (self._done - self._done_at_start) / max(1e-3, time.monotonic() - self._start)

    def _left(self, read: float) -> float:
        progress = read - (self._read_at_start or 0.0)
        return (1 - read) / max(1e-9, progress) * (time.monotonic() - self._start)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
