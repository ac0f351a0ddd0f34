"""File operations that never replace a file without permission."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Optional

from . import Failure
from .text import printable


def beside(path: Path, suffix: str) -> Path:
    """`OUTPUT.suffix`."""
    return path.with_name(f"{path.name}.{suffix}")


def publish(part: Path, final: Path, *, overwrite: bool) -> None:
    """Renames a complete file. Raises `FileExistsError` if `final` exists, unless `overwrite` is set."""
    if overwrite:
        part.replace(final)
        return
    try:
        # A rename replaces an existing file, a link does not.
        os.link(part, final)
    except FileExistsError:
        raise
    except (OSError, NotImplementedError):
        # A file system without hard links.
        if os.path.lexists(final):
            raise FileExistsError(final) from None
        part.replace(final)
    else:
        part.unlink()


def sync_folder(folder: Path) -> None:
    """Makes renames durable, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def require_regular(path: Path) -> None:
    """Raises `Failure` if the path is that of a folder, a device, a named pipe or a link."""
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(kind):
        raise Failure(f"{path} is not a regular file: rename or remove it")


def cannot_write(path: Path, failure: OSError) -> Failure:
    return Failure(f"cannot write {path}: {failure.strerror}")


def refuse_existing(paths: Iterable[Path]) -> None:
    """Raises `Failure` for the first path that exists."""
    for path in paths:
        if os.path.lexists(path):
            raise Failure(f"{path} exists already: choose another name, or replace it with --overwrite")


def refuse_inputs(paths: Sequence[Path], inputs: Iterable[str]) -> None:
    """Raises `Failure` if one of the files to write is also an input, under any name (symbolic and hard links). `-` is
    standard input."""
    written = {(found.st_dev, found.st_ino): path for path in paths if (found := _status(path)) is not None}
    for name in inputs:
        found = os.fstat(0) if name == "-" else _status(Path(name))
        path = None if found is None else written.get((found.st_dev, found.st_ino))
        if path is not None:
            shown = "standard input" if name == "-" else printable(name)
            raise Failure(f"{path} is also an input ({shown}), which would be lost: choose another OUTPUT")


def refuse_input_as_standard_output(inputs: Iterable[str]) -> None:
    """Raises `Failure` if standard output is a file that is read: the command would read its own results."""
    output = os.fstat(1)
    for name in inputs:
        path = Path(name)
        if name != "-" and path.is_file() and os.path.samestat(path.stat(), output):
            raise Failure(f"standard output is also an input ({printable(name)}): choose another file")


def _status(path: Path) -> Optional[os.stat_result]:
    try:
        return path.stat()
    except (OSError, ValueError):
        return None
