"""Progress on standard error: tqdm's bar on a terminal, lines on request."""

from __future__ import annotations

import os
import time
from typing import Any, Optional

from .counts import clock, count
from .standard_streams import StandardError, print_error

MODES = ("auto", "bar", "lines", "none")
LINE_EVERY_S = 10.0
BAR = "{percentage:3.0f}%|{bar}| {n_fmt}{unit} [{elapsed}<{remaining}, {rate_fmt}]"


class Progress:
    """Shows the rate and the time left."""

    def __init__(self, mode: str, done: int, read: Optional[float]) -> None:
        """An earlier command has done `done` sentences, the fraction `read` of the input."""
        self.mode = _resolve(mode)
        self.start = time.monotonic()
        self._shown = self.start
        self._done_at_start = self._done = done
        self._read_at_start = read
        self._bar = _open_bar(done) if self.mode == "bar" else None

    def update(self, done: int, read: Optional[float]) -> None:
        """Reports that `done` sentences, the fraction `read` of the input, are done."""
        new, self._done = done - self._done, done
        if self._bar is not None:
            if read:
                # The number of rows is unknown until the end, except for Parquet: estimate it for the time left.
                self._bar.total = max(done, round(done / read))
                self._bar.bar_format = BAR
            self._bar.update(new)
        elif self.mode == "lines" and time.monotonic() - self._shown >= LINE_EVERY_S:
            self._shown = time.monotonic()
            print_error(self._line(read))

    def close(self) -> None:
        """Erases the bar."""
        if self._bar is not None:
            self._bar.close()

    def summary(self, text: str) -> None:
        """Prints a line after the end, unless the command is silent."""
        self.close()
        if self.mode != "none":
            seconds = time.monotonic() - self.start
            resumed = f", {self._done_at_start:,} of them earlier," if self._done_at_start else ""
            done = f"{count(self._done, 'sentence')}{resumed}"
            print_error(f"{done} in {clock(seconds)} ({self._rate():,.0f}/s): {text}")

    def _line(self, read: Optional[float]) -> str:
        text = f"{count(self._done, 'sentence')}, {self._rate():,.0f}/s"
        return text if read is None else f"{100 * read:3.0f}% {text}, {clock(self._left(read))} left"

    def _rate(self) -> float:
        return (self._done - self._done_at_start) / max(1e-3, time.monotonic() - self.start)

    def _left(self, read: float) -> float:
        progress = read - (self._read_at_start or 0.0)
        return (1 - read) / max(1e-9, progress) * (time.monotonic() - self.start)


def _resolve(mode: str) -> str:
    """The mode that `auto` stands for: without a terminal the command is silent."""
    if mode != "auto":
        return mode
    if not StandardError().isatty():
        return "none"
    # Such a terminal cannot erase a line.
    return "lines" if os.environ.get("TERM") == "dumb" else "bar"


def _open_bar(done: int) -> Any:
    from tqdm import tqdm

    return tqdm(initial=done, unit=" sentences", file=StandardError(), dynamic_ncols=_has_size(), leave=False)


def _has_size() -> bool:
    """Whether the width of the terminal is known. For a width of 0 tqdm would print an empty bar."""
    try:
        return os.get_terminal_size(2).columns > 0
    except OSError:
        return False
