"""JSON lines on standard output, which cannot be resumed."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import Failure
from ..checkpoint import Position
from ..standard_streams import print_error
from .base import Batch, Layout, Sink
from .jsonl import json_lines


class StandardOutput(Sink):
    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        if sys.stdout is None:
            raise Failure("cannot write standard output: it is closed")
        self._position = Position()
        self._distinct = tempfile.TemporaryFile() if layout.dedup else None  # noqa: SIM115

    @property
    def name(self) -> str:
        return "standard output"

    @property
    def position(self) -> Position:
        return self._position

    def append(self, batch: Batch) -> None:
        try:
            if batch.rows:
                content = json_lines(self.layout, batch.rows, self.layout.converted(batch.results))
                sys.stdout.buffer.write(content)
                sys.stdout.buffer.flush()
            if self._distinct is not None:
                self._distinct.seek(0, 2)
                self._distinct.write(batch.distinct)
        except BrokenPipeError:
            raise
        except OSError as failure:
            raise Failure(f"cannot write {self.name}: {failure.strerror}") from None
        for skipped in batch.skipped:
            print_error(f"muse: skipped: {skipped.place}: {skipped.problem}")
        old = self._position
        self._position = Position(
            old.read + len(batch.items), old.rows + len(batch.rows), old.skipped + len(batch.skipped)
        )

    def vectors(self, numbers: Sequence[int]) -> Any:
        assert self._distinct is not None
        size = 4 * self.layout.dimension
        content = bytearray()
        for number in numbers:
            self._distinct.seek(number * size)
            content += self._distinct.read(size)
        return np.frombuffer(content, np.float32).reshape(len(numbers), self.layout.dimension)

    def close(self) -> None:
        if self._distinct is not None:
            self._distinct.close()
