"""What all outputs have in common: results of `embed` (vectors) or of `tokenize` (lists of tokens), in input order."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import Any, NamedTuple, Optional

import numpy as np

from .. import Failure, metadata
from ..checkpoint import Identity, Item, Position
from ..counts import count
from ..files import publish, refuse_existing, sync_folder
from ..inputs import Row
from ..part_file import PartFile
from ..spool import DISTINCT, MAIN, METADATA, SIDECARS, SKIPPED, Spool, final_path, part_path
from .json_text import encode_lines, row_text


class Skipped(NamedTuple):
    """A row that is left out of the output."""

    file: str
    line: int
    problem: str
    place: str
    """The file and the line, for people."""


@dataclass
class Batch:
    """Results to append."""

    items: Sequence[Item]
    """The rows of the input that they are for, including skipped ones."""
    rows: Sequence[Row]
    results: Any
    """One for each of `rows`: an array of float32, or lists of tokens."""
    skipped: Sequence[Skipped] = ()
    distinct: bytes = b""
    """New vectors for `--dedup`."""


@dataclass
class Layout:
    """What an output contains."""

    path: Path
    field: str
    """`embedding` or `tokens`."""
    dtype: np.dtype[Any]
    dimension: int
    columns: Sequence[Any]
    """The columns to keep, with `name` and `arrow_type`."""
    overwrite: bool
    dedup: bool
    skips: bool
    """Whether rows may be skipped (`--on-error skip`)."""
    metadata: dict[str, Any] = dataclass_field(default_factory=dict)
    compression: str = ""

    def converted(self, results: Any) -> Any:
        """The results in the type of the output."""
        if self.field == "tokens":
            return results
        self.check(results)
        return np.ascontiguousarray(results, self.dtype.newbyteorder("<"))

    def check(self, vectors: Any) -> None:
        """Raises `Failure` if the vectors have another dimension."""
        if vectors.ndim != 2 or vectors.shape[1] != self.dimension:
            text = f"the service returned vectors of the shape {vectors.shape}"
            raise Failure(f"{text}, where {self.dimension} components were expected")

    def kept(self, row: Row) -> dict[str, Any]:
        return {column.name: value for column, value in zip(self.columns, row.kept)}


class Sink:
    """Where results go."""

    resumable = False

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    @property
    def position(self) -> Position:
        """How many rows are done."""
        raise NotImplementedError

    @property
    def saved_rows(self) -> int:
        """Rows that a later command need not process again."""
        return 0

    @property
    def name(self) -> str:
        return str(self.layout.path)

    @property
    def report(self) -> Optional[Path]:
        """The file with the skipped rows."""
        return None

    def skip(self, items: Iterable[Item], name: str) -> None:
        """Checks that the rows that are done are the first of the input."""

    def append(self, batch: Batch) -> None:
        raise NotImplementedError

    def vectors(self, numbers: Sequence[int]) -> Any:
        """The vectors with these numbers, in the order in which `Batch.distinct` contained them."""
        raise NotImplementedError

    def due_in(self) -> Optional[float]:
        """Seconds until `save` should be called; None if all is saved."""
        return None

    def save(self) -> None:
        """Writes a checkpoint. All results must be of one model."""

    def roll_back(self) -> None:
        """Discards the results after the last checkpoint."""

    def finish(self) -> None:
        """Completes the output."""

    def close(self) -> None:
        """Closes the output. A later command resumes at the last checkpoint."""


class FileOutput(Sink):
    """An output file, which can be resumed."""

    resumable = True
    extra_streams: tuple[str, ...] = ()
    """Files beside the output, besides the report and the metadata."""
    has_sidecar = True
    """Whether the metadata is in a file of its own."""

    def __init__(self, layout: Layout, part: PartFile, identity: Identity, restart: bool) -> None:
        super().__init__(layout)
        streams = [*self.extra_streams, *([SKIPPED] if layout.skips else []), *([DISTINCT] if layout.dedup else [])]
        self._streams = streams
        self.spool = Spool(layout.path, part, identity, self.header(0), streams, restart)
        try:
            self._check()
        except Failure:
            self.spool.close()
            raise

    def _check(self) -> None:
        if not self.layout.overwrite:
            refuse_existing(self._finals())
        if self.position.skipped and not self.layout.skips:
            text = f"{self.spool.path} was started with --on-error skip and lacks {count(self.position.skipped, 'row')}"
            raise Failure(f"{text}: use the same option, or --restart to start over")

    @property
    def position(self) -> Position:
        return self.spool.position

    @property
    def saved_rows(self) -> int:
        return self.spool.saved.rows

    @property
    def report(self) -> Optional[Path]:
        return final_path(self.layout.path, SKIPPED) if self.position.skipped else None

    def header(self, rows: int) -> bytes:
        """The header of the file."""
        return b""

    def encode(self, rows: Sequence[Row], results: Any) -> dict[str, bytes]:
        """The bytes of rows for each stream."""
        raise NotImplementedError

    def complete(self) -> Path:
        """Completes the data of the main stream. Returns the file to rename."""
        return self.spool.part(MAIN)

    def skip(self, items: Iterable[Item], name: str) -> None:
        self.spool.skip(items, name)

    def append(self, batch: Batch) -> None:
        data = self.encode(batch.rows, self.layout.converted(batch.results)) if batch.rows else {}
        if batch.skipped:
            data[SKIPPED] = encode_lines([_report_line(skipped) for skipped in batch.skipped])
        if batch.distinct:
            data[DISTINCT] = batch.distinct
        self.spool.append(batch.items, data, len(batch.rows), len(batch.skipped))

    def vectors(self, numbers: Sequence[int]) -> Any:
        size = 4 * self.layout.dimension
        content = b"".join(self.spool.read(DISTINCT, number * size, size) for number in numbers)
        return np.frombuffer(content, np.float32).reshape(len(numbers), self.layout.dimension)

    def due_in(self) -> Optional[float]:
        return self.spool.due_in()

    def save(self) -> None:
        self.spool.save()

    def roll_back(self) -> None:
        self.spool.roll_back()

    def finish(self) -> None:
        path = self.layout.path
        try:
            part = self.complete()
            if self.has_sidecar:
                content = metadata.serialise({**self.fields(), "bytes": part.stat().st_size})
                part_path(path, METADATA).write_text(content + "\n", encoding="utf-8")
            if not self.layout.overwrite:
                for final in filter(os.path.lexists, self._finals()):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final))
            # From here on files with the final names are ours.
            written = [stream for stream in SIDECARS if self._is_written(stream)]
            self.spool.save(publishing=written)
            self.spool.release()
            for stream in SIDECARS:
                if stream in written:
                    self._publish(part_path(path, stream), final_path(path, stream))
                elif self.layout.overwrite:
                    # It belonged to the output that is replaced.
                    final_path(path, stream).unlink(missing_ok=True)
            self._publish(part, path)
            sync_folder(path.absolute().parent)
            self.spool.remove()
        except FileExistsError as failure:
            text = f"{failure.filename or path} has appeared while the command ran"
            raise Failure(f"{text}: move it, or replace it with --overwrite") from None
        except OSError as failure:
            raise Failure(f"cannot write {path}: {failure.strerror}") from None

    def fields(self) -> dict[str, Any]:
        """The metadata."""
        return {**self.layout.metadata, "rows": self.position.rows, "skipped": self.position.skipped}

    def close(self) -> None:
        self.spool.close()

    def _is_written(self, stream: str) -> bool:
        if stream == METADATA:
            return self.has_sidecar
        return stream in self._streams and (stream != SKIPPED or self.position.skipped > 0)

    def _publish(self, part: Path, final: Path) -> None:
        try:
            publish(part, final, overwrite=self.layout.overwrite)
        except FileExistsError as failure:
            raise FileExistsError(failure.errno, failure.strerror, str(final)) from None

    def _finals(self) -> list[Path]:
        """The files that will exist at the end."""
        streams = [*self._streams, *([METADATA] if self.has_sidecar else [])]
        return [self.layout.path, *(final_path(self.layout.path, name) for name in streams if name != DISTINCT)]


def _report_line(skipped: Skipped) -> str:
    return "{" + row_text({"file": skipped.file, "line": skipped.line, "problem": skipped.problem}) + "}"
