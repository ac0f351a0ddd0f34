"""Writes results to files of any size, one batch at a time."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Optional, Union

import numpy as np

from .._transfer import DIMENSION
from . import Failure
from .optional import pyarrow
from .spool import Spool

FORMATS = {".npy": "npy", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
NPY_HEADER_BYTES = 128
FRAME_LENGTH_BYTES = 8
ROW_GROUP_ROWS = 16_384


class Output:
    """Results of `embed` (vectors) or of `tokenize` (lists of tokens), in the order of the input."""

    resumable = True

    def __init__(self, path: Path, field: str, restart: bool) -> None:
        self.path = path
        self._field = field
        self._spool = Spool(path, f"muse {VERBS[field]} to {type(self).__name__}", self.header(0), restart)

    @property
    def rows(self) -> int:
        """Number of sentences that are done."""
        return self._spool.rows

    def skip(self, sentences: Iterator[str], name: str) -> None:
        """Checks that the sentences that are done are the first of the input."""
        self._spool.skip(sentences, name)

    def append(self, sentences: Sequence[str], results: Any) -> None:
        """Appends the results of the next sentences."""
        self._spool.append(sentences, self.encode(sentences, results))

    def finish(self) -> None:
        """Completes the output file."""
        try:
            self._finish()
        except OSError as failure:
            raise Failure(f"cannot write {self.path}: {failure.strerror}") from None

    def header(self, rows: int) -> bytes:
        """The header of the file."""
        return b""

    def encode(self, sentences: Sequence[str], results: Any) -> bytes:
        raise NotImplementedError

    def _finish(self) -> None:
        self._spool.rename_to(self.path)

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._spool.__exit__(kind, error, trace)


VERBS = {"embedding": "embed", "tokens": "tokenize"}


class Npy(Output):
    """A numpy array of float32, (sentences, 512)."""

    def header(self, rows: int) -> bytes:
        shape = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {DIMENSION}), }}"
        magic = b"\x93NUMPY\x01\x00" + (NPY_HEADER_BYTES - 10).to_bytes(2, "little")
        return magic + shape.encode().ljust(NPY_HEADER_BYTES - 11) + b"\n"

    def encode(self, sentences: Sequence[str], results: Any) -> bytes:
        return np.ascontiguousarray(results, "<f4").tobytes()

    def _finish(self) -> None:
        self._spool.replace_header(self.header(self.rows))
        super()._finish()


class JsonLines(Output):
    """On each line an object with a sentence and its result."""

    def encode(self, sentences: Sequence[str], results: Any) -> bytes:
        return json_lines(self._field, sentences, results)


class Parquet(Output):
    """Two columns: the sentence and its result."""

    def __init__(self, path: Path, field: str, restart: bool) -> None:
        self._pa = pyarrow()
        pa = self._pa
        results = pa.list_(pa.float32(), DIMENSION) if field == "embedding" else pa.list_(pa.string())
        self._schema = pa.schema([("sentence", pa.string()), (field, results)])
        super().__init__(path, field, restart)

    def encode(self, sentences: Sequence[str], results: Any) -> bytes:
        """A frame: a length and an Arrow IPC message. A Parquet file cannot be appended to after an interruption."""
        pa = self._pa
        if self._field == "embedding":
            flat = pa.array(np.ascontiguousarray(results, np.float32).reshape(-1))
            column = pa.FixedSizeListArray.from_arrays(flat, DIMENSION)
        else:
            column = pa.array(results, self._schema.field(1).type)
        message = pa.record_batch([pa.array(sentences, pa.string()), column], schema=self._schema).serialize()
        return len(message).to_bytes(FRAME_LENGTH_BYTES, "little") + message.to_pybytes()  # type: ignore[no-any-return]

    def _finish(self) -> None:
        pa = self._pa
        new = self.path.with_name(self.path.name + ".part.new")
        with pa.parquet.ParquetWriter(new, self._schema, compression="zstd") as writer:
            group: list[Any] = []
            for batch in self._batches():
                group.append(batch)
                if sum(len(batch) for batch in group) >= ROW_GROUP_ROWS:
                    writer.write_table(pa.Table.from_batches(group))
                    group = []
            if group:
                writer.write_table(pa.Table.from_batches(group))
        with new.open("rb") as file:
            os.fsync(file.fileno())
        new.replace(self.path)
        self._spool.remove()

    def _batches(self) -> Iterator[Any]:
        with self._spool.path.open("rb") as file:
            while length := file.read(FRAME_LENGTH_BYTES):
                message = file.read(int.from_bytes(length, "little"))
                yield self._pa.ipc.read_record_batch(self._pa.py_buffer(message), self._schema)


class StandardOutput:
    """JSON lines on standard output, which cannot be resumed."""

    rows = 0
    resumable = False

    def __init__(self, field: str) -> None:
        self.path = Path("standard output")
        self._field = field

    def skip(self, sentences: Iterator[str], name: str) -> None:
        """Does nothing: no sentence is done."""

    def append(self, sentences: Sequence[str], results: Any) -> None:
        try:
            sys.stdout.buffer.write(json_lines(self._field, sentences, results))
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            raise
        except OSError as failure:
            raise Failure(f"cannot write {self.path}: {failure.strerror}") from None
        self.rows += len(sentences)

    def finish(self) -> None:
        """Does nothing: all results are written."""

    def __enter__(self) -> StandardOutput:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def open_output(
    name: str, kind: Optional[str], field: str, *, overwrite: bool, restart: bool
) -> Union[Output, StandardOutput]:
    """Opens an output. If `kind` is None, the file extension determines the format."""
    if kind is None:
        kind = "jsonl" if name == "-" else FORMATS.get(Path(name).suffix.lower())
    if kind is None:
        known = ", ".join(FORMATS)
        raise Failure(f"cannot determine the format of {name} from its extension ({known}): use --output-format")
    if kind == "npy" and field == "tokens":
        raise Failure("tokens cannot be written as .npy: choose .jsonl or .parquet")
    if name == "-":
        if kind != "jsonl":
            raise Failure(f"only jsonl can be written to standard output, not {kind}: use a file")
        return StandardOutput(field)
    path = Path(name)
    if path.exists() and not path.is_file():
        raise Failure(f"{name} is not a regular file")
    if path.exists() and not overwrite:
        raise Failure(f"{name} exists already: choose another name, or replace it with --overwrite")
    writers: dict[str, type[Output]] = {"npy": Npy, "jsonl": JsonLines, "parquet": Parquet}
    return writers[kind](path, field, restart)


def json_lines(field: str, sentences: Sequence[str], results: Any) -> bytes:
    """A line for each sentence. Numbers have the shortest form that parses as the same float32."""
    lines = []
    for sentence, result in zip(sentences, results):
        text = json.dumps(sentence, ensure_ascii=False)
        value = _numbers(result) if isinstance(result, np.ndarray) else json.dumps(result, ensure_ascii=False)
        lines.append(f'{{"sentence":{text},"{field}":{value}}}\n')
    return "".join(lines).encode()


def _numbers(vector: Any) -> str:
    return "[" + ",".join(map(str, vector)) + "]"
