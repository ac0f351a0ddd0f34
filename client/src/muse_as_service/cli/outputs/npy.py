"""A numpy array, (sentences, dimension)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..checkpoint import Identity
from ..inputs import Row
from ..part_file import PartFile
from ..spool import ROWS
from .base import FileOutput, Layout
from .json_text import encode_lines, row_text

HEADER_BYTES = 128


class Npy(FileOutput):
    """The columns to keep are in `OUTPUT.rows.jsonl`, a line for each vector."""

    def __init__(self, layout: Layout, part: PartFile, identity: Identity, restart: bool) -> None:
        self.extra_streams = (ROWS,) if layout.columns else ()
        super().__init__(layout, part, identity, restart)

    def header(self, rows: int) -> bytes:
        descr = self.layout.dtype.newbyteorder("<").str
        shape = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': ({rows}, {self.layout.dimension}), }}"
        magic = b"\x93NUMPY\x01\x00" + (HEADER_BYTES - 10).to_bytes(2, "little")
        return magic + shape.encode().ljust(HEADER_BYTES - 11) + b"\n"

    def encode(self, rows: Sequence[Row], results: Any) -> dict[str, bytes]:
        data = {"": results.tobytes()}
        if self.layout.columns:
            data[ROWS] = encode_lines(["{" + row_text(self.layout.kept(row)) + "}" for row in rows])
        return data

    def complete(self) -> Path:
        self.spool.replace_header(self.header(self.position.rows))
        return super().complete()
