"""Parquet: the columns sentence, those to keep, and the result."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from .. import Failure, metadata
from ..checkpoint import Identity
from ..files import beside
from ..inputs import Row
from ..optional import pyarrow
from ..part_file import PartFile
from ..spool import MAIN
from .base import FileOutput, Layout
from .json_text import encode_lines, value_text

FRAME_LENGTH_BYTES = 8
ROW_GROUP_ROWS = 16_384
INT64 = range(-(1 << 63), 1 << 63)


class Parquet(FileOutput):
    """A Parquet file cannot be appended to after an interruption. The main stream is a sequence of frames, each with a
    length and an Arrow IPC message, from which the file is written at the end.

    The types of columns to keep of CSV and JSON are known only at the end: frames contain them as JSON.
    """

    has_sidecar = False

    def __init__(self, layout: Layout, part: PartFile, identity: Identity, restart: bool) -> None:
        self._pa = pa = pyarrow()
        self.layout = layout
        if layout.field == "embedding":
            if layout.dtype == np.float16 and int(pa.__version__.partition(".")[0]) < 15:
                raise Failure("float16 in Parquet needs pyarrow 15 or newer: update it, or use --dtype float32")
            self._result_type = pa.list_(pa.from_numpy_dtype(layout.dtype), layout.dimension)
        else:
            self._result_type = pa.list_(pa.string())
        types = [column.arrow_type or pa.string() for column in layout.columns]
        self._frame_schema = self._schema(types)
        super().__init__(layout, part, identity, restart)

    def encode(self, rows: Sequence[Row], results: Any) -> dict[str, bytes]:
        pa = self._pa
        if self.layout.field == "embedding":
            values = pa.array(results.reshape(-1))
            column = pa.FixedSizeListArray.from_arrays(values, self.layout.dimension)
        else:
            column = pa.array(results, self._result_type)
        kept = [self._kept(index, [row.kept[index] for row in rows]) for index in range(len(self.layout.columns))]
        arrays = [pa.array([row.sentence for row in rows], pa.string()), *kept, column]
        message = pa.record_batch(arrays, schema=self._frame_schema).serialize().to_pybytes()
        return {MAIN: len(message).to_bytes(FRAME_LENGTH_BYTES, "little") + message}

    def complete(self) -> Path:
        pa = self._pa
        types = self._final_types()
        schema = self._schema(types).with_metadata({metadata.KEY: metadata.serialise(self.fields())})
        new = beside(self.spool.path, "new")
        try:
            # Opened by Python, because the errors of a full disk are OSErrors with a text then.
            with new.open("wb") as file:
                with pa.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
                    group: list[Any] = []
                    for batch in self._batches():
                        group.append(self._typed(batch, schema))
                        if sum(map(len, group)) >= ROW_GROUP_ROWS:
                            writer.write_table(pa.Table.from_batches(group))
                            group = []
                    if group:
                        writer.write_table(pa.Table.from_batches(group))
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            with suppress(OSError):
                new.unlink()
            raise
        return new

    def _schema(self, types: Sequence[Any]) -> Any:
        kept = [(column.name, kind) for column, kind in zip(self.layout.columns, types)]
        return self._pa.schema([("sentence", self._pa.string()), *kept, (self.layout.field, self._result_type)])

    def _kept(self, index: int, values: list[Any]) -> Any:
        pa, column = self._pa, self.layout.columns[index]
        if column.arrow_type is None:
            # As in JSON lines, also for unpaired surrogates, which Arrow rejects.
            texts = [None if value is None else encode_lines([value_text(value)])[:-1].decode() for value in values]
            return pa.array(texts, pa.string())
        try:
            return pa.array(values, column.arrow_type)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as failure:
            text = str(failure).partition("\n")[0]
            raise Failure(f"cannot write the column '{column.name}' as {column.arrow_type}: {text}") from None

    def _final_types(self) -> list[Any]:
        """The types of the columns to keep: those whose values are JSON get the type that all values have."""
        kinds: list[set[str]] = [set() for _ in self.layout.columns]
        if any(column.arrow_type is None for column in self.layout.columns):
            for batch in self._batches():
                for index, column in enumerate(self.layout.columns):
                    if column.arrow_type is None:
                        kinds[index].update(map(_kind, self._values(batch, index)))
        return [column.arrow_type or self._type_of(kind) for column, kind in zip(self.layout.columns, kinds)]

    def _type_of(self, kinds: set[str]) -> Any:
        kinds = kinds - {"null"}
        if kinds == {"bool"}:
            return self._pa.bool_()
        if kinds and kinds <= {"int", "large int"}:
            return self._pa.int64()
        if kinds and kinds <= {"int", "float"}:
            return self._pa.float64()
        return self._pa.string()

    def _typed(self, batch: Any, schema: Any) -> Any:
        pa, arrays = self._pa, list(batch.columns)
        for index, column in enumerate(self.layout.columns):
            if column.arrow_type is None:
                kind = schema.field(index + 1).type
                values = self._values(batch, index)
                if pa.types.is_string(kind):
                    values = [_text(value) for value in values]
                elif pa.types.is_floating(kind):
                    values = [None if value is None else float(value) for value in values]
                arrays[index + 1] = pa.array(values, kind)
        return pa.record_batch(arrays, schema=schema)

    def _values(self, batch: Any, index: int) -> list[Any]:
        texts = batch.column(index + 1).to_pylist()
        return [None if text is None else json.loads(text) for text in texts]

    def _batches(self) -> Iterator[Any]:
        with self.spool.part(MAIN).open("rb") as file:
            while length := file.read(FRAME_LENGTH_BYTES):
                message = file.read(int.from_bytes(length, "little"))
                yield self._pa.ipc.read_record_batch(self._pa.py_buffer(message), self._frame_schema)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        # float64 has all integers up to 2**53.
        return "int" if abs(value) <= 1 << 53 else "large int" if value in INT64 else "text"
    return "float" if isinstance(value, float) else "text"


def _text(value: Any) -> Any:
    """A string, or the JSON of another value. Unpaired surrogates become escapes, because they are not UTF-8."""
    if value is None:
        return None
    text = value if isinstance(value, str) else value_text(value)
    return text.encode("utf-8", "backslashreplace").decode()
