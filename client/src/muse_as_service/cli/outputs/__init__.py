"""Writes results to files of any size, one batch at a time."""

from __future__ import annotations

import errno
import os
from pathlib import Path, PurePath
from typing import NamedTuple, Optional

from .. import Failure
from ..checkpoint import Identity
from ..files import cannot_write
from ..part_file import PartFile
from ..spool import MAIN, SIDECARS, final_path, remove_published, spool_files
from .base import Batch, FileOutput, Layout, Sink, Skipped
from .compression import SUFFIXES
from .jsonl import JsonLines
from .npy import Npy
from .parquet import Parquet
from .standard import StandardOutput

__all__ = ["FORMATS", "Batch", "Layout", "Sink", "Skipped", "Target", "open_output"]

FORMATS = {".npy": "npy", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
WRITERS: dict[str, type[FileOutput]] = {"npy": Npy, "jsonl": JsonLines, "parquet": Parquet}


class Target(NamedTuple):
    """The name of an output and what it stands for."""

    path: Path
    format: str
    compression: str
    standard: bool

    @classmethod
    def of(cls, name: str, kind: Optional[str], field: str, *, overwrite: bool) -> Target:
        """Determines the format, from the extension if `kind` is None. Raises `Failure` if it cannot be written."""
        suffixes = [suffix.lower() for suffix in PurePath(name).suffixes]
        compression = SUFFIXES.get(suffixes[-1], "") if suffixes else ""
        if kind is None:
            extension = suffixes[-2:-1] if compression else suffixes[-1:]
            kind = "jsonl" if name == "-" else FORMATS.get(extension[0]) if extension else None
        if kind is None:
            known = ", ".join([*FORMATS, *(f".jsonl{suffix}" for suffix in SUFFIXES)])
            text = f"cannot determine the format of {name}, the output, from its extension ({known})"
            raise Failure(f"{text}: the last name is the output; add one, or use --output-format")
        if kind == "npy" and field == "tokens":
            raise Failure("tokens cannot be written as .npy: choose .jsonl or .parquet")
        if compression and kind != "jsonl":
            raise Failure(f"{name}: only JSON lines can be compressed as {suffixes[-1]}, not {kind}")
        if name == "-":
            if kind != "jsonl":
                raise Failure(f"only jsonl can be written to standard output, not {kind}: use a file")
            return cls(Path(name), kind, "", True)
        path = Path(name)
        _check_names(path)
        if os.path.lexists(path) and not overwrite:
            remove_published(path)
            text = f"{name}, the output, exists already"
            raise Failure(f"{text}: the last name is the output; choose another one, or replace it with --overwrite")
        return cls(path, kind, compression, False)

    def files(self) -> list[Path]:
        """All files that may be written."""
        return [*_final_paths(self.path), *spool_files(self.path)]


def _final_paths(output: Path) -> list[Path]:
    return [final_path(output, name) for name in (MAIN, *SIDECARS)]


def _check_names(output: Path) -> None:
    """Raises `Failure` if the output, or a file beside it, cannot have its name."""
    if not output.parent.is_dir():
        raise Failure(f"cannot write {output}: there is no folder {output.parent}")
    for path in [*_final_paths(output), *spool_files(output)]:
        try:
            path.lstat()
        except FileNotFoundError:
            continue
        except OSError as failure:
            if failure.errno != errno.ENAMETOOLONG:
                raise cannot_write(path, failure) from None
            text = "its name, with the suffixes of the files beside it, is too long: choose a shorter one"
            raise Failure(f"cannot write {output}: {text}") from None
    for path in _final_paths(output):
        if path.exists() and not path.is_file():
            raise Failure(f"{path} is not a regular file: choose another name")


def open_output(target: Target, layout: Layout, part: Optional[PartFile], identity: Identity, *, restart: bool) -> Sink:
    """Opens an output, or that of an interrupted command with the same identity. `part` is None for standard output."""
    names = [column.name for column in layout.columns]
    for name in ("sentence", layout.field):
        if name in names:
            raise Failure(f"--keep cannot copy the column '{name}', because OUTPUT has another one with this name")
    if part is None:
        return StandardOutput(layout)
    return WRITERS[target.format](layout, part, identity, restart)
