"""JSON lines: on each line an object with a sentence, the columns to keep and the result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

from ..checkpoint import Identity
from ..inputs import Row
from ..part_file import PartFile
from .base import FileOutput, Layout
from .compression import compressor
from .json_text import encode, result_texts, row_text, value_text


class JsonLines(FileOutput):
    """Uncompressed, or a member of a compressed file for each batch."""

    def __init__(self, layout: Layout, part: PartFile, identity: Identity, restart: bool) -> None:
        self._compress: Callable[[bytes], bytes] = compressor(layout.compression) if layout.compression else bytes
        super().__init__(layout, part, identity, restart)

    def encode(self, rows: Sequence[Row], results: Any) -> dict[str, bytes]:
        return {"": self._compress(json_lines(self.layout, rows, results))}


def json_lines(layout: Layout, rows: Sequence[Row], results: Any) -> bytes:
    parts: list[bytes] = []
    for row, result in zip(rows, result_texts(results)):
        kept = f",{row_text(layout.kept(row))}" if layout.columns else ""
        parts += encode(f'{{"sentence":{value_text(row.sentence)}{kept},"{layout.field}":'), result, b"}\n"
    return b"".join(parts)
