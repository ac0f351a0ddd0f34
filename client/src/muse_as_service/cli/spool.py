"""Checkpoints: results are stored beside the output until it is complete, so that a command can resume."""

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
    """The results in `OUTPUT.part`, and a checkpoint in `OUTPUT.part.json` with the number of valid bytes and rows.

    Opening the spool truncates it to the last checkpoint, so an interruption at any time, even during a write, leaves
    no invalid data. The checkpoint contains a digest of the sentences that are done, to detect a different input.
    """

    def __init__(self, output: Path, purpose: str, header: bytes, restart: bool) -> None:
        """Opens the spool of an earlier command with the same purpose, or creates one with a header."""
        self.path = output.with_name(output.name + ".part")
        self._checkpoint = output.with_name(output.name + ".part.json")
        self._purpose = purpose
        self._digest = hashlib.blake2b(digest_size=16)
        self.rows = 0
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
            self._file: BinaryIO = os.fdopen(descriptor, "r+b")
        except OSError as failure:
            raise Failure(f"cannot write {self.path}: {failure.strerror}") from None
        self._lock()
        checkpoint = None if restart else self._read_checkpoint()
        if checkpoint is None:
            self._file.truncate(0)
            self._write(header, 0)
        else:
            self._file.seek(checkpoint["bytes"])
            self._file.truncate()
            self.rows = checkpoint["rows"]
        self._expected_digest = checkpoint and checkpoint["digest"]

    def skip(self, sentences: Iterable[str], name: str) -> None:
        """Checks that the first sentences of the input are those that are done."""
        count = 0
        for sentence in sentences:
            self._add(sentence)
            count += 1
        if count < self.rows or self._expected_digest not in (None, self._digest.hexdigest()):
            text = f"the {self.rows:,} sentences that are done are not those at the beginning of {name}"
            raise Failure(f"{self.path} belongs to another input ({text}): use --restart to start over")

    def append(self, sentences: Iterable[str], data: bytes) -> None:
        """Appends the results of the next sentences and writes a checkpoint."""
        count = 0
        for sentence in sentences:
            self._add(sentence)
            count += 1
        self._write(data, count)

    def replace_header(self, header: bytes) -> None:
        """Overwrites the header with one of the same length."""
        self._file.seek(0)
        self._file.write(header)

    def rename_to(self, output: Path) -> None:
        """Renames the spool to the output."""
        self._file.flush()
        os.fsync(self._file.fileno())
        if fcntl is None:
            self._file.close()
        self.path.replace(output)
        self._checkpoint.unlink(missing_ok=True)

    def remove(self) -> None:
        """Deletes the spool."""
        self._checkpoint.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._file.close()
        if self.rows == 0 and self.path.exists():
            # No result to save.
            self.remove()

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise self._in_use() from None
        # The other process may have renamed the file to its output in the meantime.
        if not (self.path.exists() and os.path.samestat(self.path.stat(), os.fstat(self._file.fileno()))):
            raise self._in_use()

    def _in_use(self) -> Failure:
        return Failure(f"{self.path} is in use by another 'muse': wait until it exits")

    def _read_checkpoint(self) -> Optional[dict[str, Any]]:
        try:
            checkpoint: dict[str, Any] = json.loads(self._checkpoint.read_text(encoding="utf-8"))
            complete = self.path.stat().st_size >= checkpoint["bytes"]
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, OSError):
            complete = False
        if not complete:
            raise Failure(f"{self.path} is damaged: use --restart to start over")
        if checkpoint["purpose"] != self._purpose:
            text = f"{self.path} was started by '{checkpoint['purpose']}', not by '{self._purpose}'"
            raise Failure(f"{text}: use the same command, or --restart to start over")
        return checkpoint

    def _add(self, sentence: str) -> None:
        text = sentence.encode()
        self._digest.update(len(text).to_bytes(8, "little"))
        self._digest.update(text)

    def _write(self, data: bytes, rows: int) -> None:
        try:
            self._file.write(data)
            self._file.flush()
            checkpoint = {
                "purpose": self._purpose,
                "rows": self.rows + rows,
                "bytes": self._file.tell(),
                "digest": self._digest.hexdigest(),
            }
            new = self._checkpoint.with_name(self._checkpoint.name + ".new")
            new.write_text(json.dumps(checkpoint), encoding="utf-8")
            new.replace(self._checkpoint)
            self.rows += rows
        except KeyboardInterrupt:
            # The checkpoint may have been written already.
            self.rows = self._retained_rows()
            raise
        except OSError as failure:
            raise Failure(f"cannot write {self.path}: {failure.strerror}") from None

    def _retained_rows(self) -> int:
        try:
            rows: int = json.loads(self._checkpoint.read_text(encoding="utf-8"))["rows"]
            return rows
        except FileNotFoundError:
            return 0
