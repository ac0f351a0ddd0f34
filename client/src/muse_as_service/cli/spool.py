"""Keeps finished work in a file beside the output until all of it is done, so that a stopped command can go on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Optional

from . import Failure

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class Spool:
    """The file `OUTPUT.part`, to which results are appended, and `OUTPUT.part.json`, which says how much of it counts.

    What was appended after the last note of it is cut off when the spool is opened again, so that a stop at any
    moment, in the midst of a write too, leaves nothing that is wrong. The note holds a digest of the sentences that
    are done, by which another input is told from the one that the work was begun with.
    """

    def __init__(self, output: Path, purpose: str, header: bytes, restart: bool) -> None:
        """Opens what an earlier command with the same purpose has left, or begins anew with a header."""
        self.path = output.with_name(output.name + ".part")
        self._note = output.with_name(output.name + ".part.json")
        self._purpose = purpose
        self._digest = hashlib.blake2b(digest_size=16)
        self.rows = 0
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
            self._file: BinaryIO = os.fdopen(descriptor, "r+b")
        except OSError as failure:
            raise Failure(f"cannot write {self.path}: {failure.strerror}") from None
        self._lock()
        noted = None if restart else self._noted()
        if noted is None:
            self._file.truncate(0)
            self._write(header, 0)
        else:
            self._file.seek(noted["bytes"])
            self._file.truncate()
            self.rows = noted["rows"]
        self._digest_then = noted and noted["digest"]

    def skip(self, sentences: Iterable[str], name: str) -> None:
        """Takes the first sentences of the input, which must be those that are done."""
        count = 0
        for sentence in sentences:
            self._add(sentence)
            count += 1
        if count < self.rows or self._digest_then not in (None, self._digest.hexdigest()):
            text = f"the {self.rows:,} sentences that are done are not those at the beginning of {name}"
            raise Failure(f"{self.path} is of another input ({text}): use --restart to begin anew")

    def append(self, sentences: Iterable[str], data: bytes) -> None:
        """Adds the results of the next sentences."""
        count = 0
        for sentence in sentences:
            self._add(sentence)
            count += 1
        self._write(data, count)

    def replace_header(self, header: bytes) -> None:
        """Writes another header of the same length."""
        self._file.seek(0)
        self._file.write(header)

    def become(self, output: Path) -> None:
        """The spool is the output from now on."""
        self._file.flush()
        os.fsync(self._file.fileno())
        if fcntl is None:
            self._file.close()
        self.path.replace(output)
        self._note.unlink(missing_ok=True)

    def remove(self) -> None:
        """Ends a spool of which nothing is needed any more."""
        self._note.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._file.close()
        if self.rows == 0 and self.path.exists():
            # Nothing was done that is worth to be kept.
            self.remove()

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise self._in_use() from None
        # The other one may have ended, and the file may be its output by now.
        if not (self.path.exists() and os.path.samestat(self.path.stat(), os.fstat(self._file.fileno()))):
            raise self._in_use()

    def _in_use(self) -> Failure:
        return Failure(f"{self.path} is in use by another 'muse': wait for its end")

    def _noted(self) -> Optional[dict[str, Any]]:
        try:
            noted: dict[str, Any] = json.loads(self._note.read_text(encoding="utf-8"))
            whole = self.path.stat().st_size >= noted["bytes"]
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, OSError):
            whole = False
        if not whole:
            raise Failure(f"{self.path} is damaged: use --restart to begin anew")
        if noted["purpose"] != self._purpose:
            text = f"{self.path} was begun by '{noted['purpose']}', not by '{self._purpose}'"
            raise Failure(f"{text}: use the same command, or --restart to begin anew")
        return noted

    def _add(self, sentence: str) -> None:
        text = sentence.encode()
        self._digest.update(len(text).to_bytes(8, "little"))
        self._digest.update(text)

    def _write(self, data: bytes, rows: int) -> None:
        try:
            self._file.write(data)
            self._file.flush()
            note = {
                "purpose": self._purpose,
                "rows": self.rows + rows,
                "bytes": self._file.tell(),
                "digest": self._digest.hexdigest(),
            }
            new = self._note.with_name(self._note.name + ".new")
            new.write_text(json.dumps(note), encoding="utf-8")
            new.replace(self._note)
            self.rows += rows
        except KeyboardInterrupt:
            # A stop between the two would tell of less than is kept.
            self.rows = self._kept()
            raise
        except OSError as failure:
            raise Failure(f"cannot write {self.path}: {failure.strerror}") from None

    def _kept(self) -> int:
        try:
            rows: int = json.loads(self._note.read_text(encoding="utf-8"))["rows"]
            return rows
        except FileNotFoundError:
            return 0
