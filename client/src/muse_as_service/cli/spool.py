"""Checkpointed files: results are stored beside the output until it is complete, so that a command can resume."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Optional

from . import Failure
from .checkpoint import (
    Checkpoint,
    Identity,
    Incompatible,
    Item,
    Position,
    digested,
    is_unfinished_checkpoint,
    new_digest,
    read_checkpoint,
    temporary,
    write_checkpoint,
)
from .files import beside, cannot_write, require_regular
from .part_file import RENAMES_OPEN_FILES, PartFile, open_part
from .standard_streams import print_error

MAIN = ""
"""The stream of the output itself."""
DISTINCT = "distinct"
"""The stream of a scratch file, which is deleted at the end."""
ROWS, SKIPPED, METADATA = SIDECARS = "rows.jsonl", "skipped.jsonl", "meta.json"
"""Those of the files beside the output."""
CHECKPOINT_EVERY_S = 1.0
# Checkpoints wait for the disk; they may take a twentieth of the time.
CHECKPOINT_INTERVAL_RATIO = 20.0


class Spool:
    """Append-only files: the main stream `OUTPUT.part`, and others beside it, with a checkpoint in `OUTPUT.part.json`.

    The checkpoint contains the number of valid bytes of each stream. Opening the spool truncates them to it, so an
    interruption at any time, even during a write, leaves no invalid data. The data are on the disk before a checkpoint
    that contains them, so a power failure does not, either.
    """

    def __init__(
        self,
        output: Path,
        main: PartFile,
        identity: Identity,
        header: bytes,
        streams: Iterable[str],
        restart: bool,
    ) -> None:
        """Opens the spool of an earlier command with the same identity, or creates one. With `restart` the results of
        the earlier command are discarded when the first new ones are appended, not before."""
        self.path = main.path
        self._main = main
        self._checkpoint = beside(output, "part.json")
        self._paths = {name: part_path(output, name) for name in (MAIN, *streams)}
        # Also those that this command does not write, but an interrupted one with other options.
        self._family = spool_files(output)
        self._files = {MAIN: main.descriptor}
        self._identity = identity
        self._header = header
        self.position = Position()
        self.saved = self.position
        """The position of the last checkpoint."""
        self._begun = False
        self._due = 0.0
        try:
            found = self._recognise(restart)
            if found is not None and not self._is_published(found):
                if found.publishing is not None:
                    _take_back(output, found)
                if not restart:
                    self._resume(found)
            self._retains_old = restart and self._checkpoint.exists()
        except BaseException:
            self._close()
            raise

    def skip(self, items: Iterable[Item], name: str) -> None:
        """Checks that the first rows of the input are those that are done."""
        digest, count = new_digest(), 0
        for item in items:
            digest.update(digested((item,)))
            count += 1
        if count < self.position.read or digest.hexdigest() != self._expected_digest:
            text = f"the {self.position.read:,} sentences that are done are not those at the beginning of {name}"
            raise Failure(f"{self.path} belongs to another input ({text}): use --restart to start over")
        self.position = Position(count, self.position.rows, self.position.skipped, self.position.sizes, digest)
        self.saved = self.position

    def append(self, items: Iterable[Item], data: Mapping[str, bytes], rows: int, skipped: int) -> None:
        """Appends the results of the next rows of the input. `save` makes them permanent."""
        items = list(items)
        try:
            if not self._begun:
                self._begin()
            old = self.position
            digest = old.digest.copy()
            digest.update(digested(items))
            sizes = dict(old.sizes)
            for name, content in data.items():
                self._write(name, sizes.get(name, 0), content)
                sizes[name] = sizes.get(name, 0) + len(content)
        except OSError as failure:
            raise self._cannot_write(failure) from None
        # One assignment: an interruption leaves the old position or the new one.
        self.position = Position(old.read + len(items), old.rows + rows, old.skipped + skipped, sizes, digest)

    def read(self, stream: str, offset: int, size: int) -> bytes:
        """Reads back from a stream."""
        os.lseek(self._files[stream], offset, os.SEEK_SET)
        content = b""
        while len(content) < size and (part := os.read(self._files[stream], size - len(content))):
            content += part
        return content

    def due_in(self) -> Optional[float]:
        """Seconds until `save` should be called, even if nothing is appended; None if everything is saved."""
        if self.position is self.saved:
            return None
        return max(0.0, self._due - time.monotonic())

    def save(self, publishing: Optional[Sequence[str]] = None) -> None:
        """Writes a checkpoint. A later command resumes after these results, so they must be of the identity's model.

        `publishing` names the streams whose files will be renamed next, besides the main one.
        """
        start = time.monotonic()
        position = self.position
        try:
            # Frees the space of a write that failed because the disk is full.
            self._truncate()
            for file in self._files.values():
                os.fsync(file)
            write_checkpoint(self._checkpoint, self._identity, position, publishing)
        except OSError as failure:
            raise self._cannot_write(failure) from None
        self.saved = position
        end = time.monotonic()
        self._due = end + max(CHECKPOINT_EVERY_S, CHECKPOINT_INTERVAL_RATIO * (end - start))

    def roll_back(self) -> None:
        """Discards the results after the last checkpoint."""
        if self._begun:
            self.position = self.saved
            self._truncate()

    def replace_header(self, header: bytes) -> None:
        """Overwrites the header with one of the same length."""
        self._write(MAIN, 0, header)

    def part(self, stream: str) -> Path:
        return self._paths[stream]

    def release(self) -> None:
        """Closes the files where the system cannot rename open ones."""
        if not RENAMES_OPEN_FILES:
            self._close()

    def remove(self) -> None:
        """Deletes all files of the spool that exist still, unless they are those of another command already."""
        self.release()
        if not self._files or self._main.has_path() or self._main.reserve_path():
            for path in self._family:
                path.unlink(missing_ok=True)
        self._close()

    def close(self) -> None:
        """Closes the files. Without results in a checkpoint none remain."""
        empty = bool(self._files) and self.saved.read == 0 and (self._begun or not self._retains_old)
        if empty:
            self.remove()
        self._close()

    def _open(self, stream: str) -> None:
        self._files[stream], _ = open_part(self._paths[stream])

    def _recognise(self, restart: bool) -> Optional[Checkpoint]:
        """Returns the checkpoint. Raises `Failure` if one of the files is not ours."""
        for path in self._family:
            require_regular(path)
        found: Optional[Checkpoint] = None
        ours = True
        try:
            found = read_checkpoint(self._checkpoint)
            ours = found is not None
        except Incompatible:
            if not restart:
                raise
        new = temporary(self._checkpoint)
        for path in self._family:
            if ours or path == self._checkpoint or not path.exists():
                continue
            if path == new:
                if not is_unfinished_checkpoint(new):
                    raise Failure(f"{new} is not a file of muse: rename or remove it")
            elif path != self.path or path.stat().st_size:
                # Only the main file is created before the checkpoint.
                raise Failure(f"{path} exists and is not of an interrupted 'muse': rename or remove it")
        return found

    def _is_published(self, found: Checkpoint) -> bool:
        """Whether the command of the checkpoint has renamed all files."""
        empty = not os.fstat(self._main.descriptor).st_size
        renamed = self._main.created or (empty and found.position.sizes.get(MAIN, 0) > 0)
        return found.publishing is not None and renamed

    def _resume(self, found: Checkpoint) -> None:
        found.check(self._identity, self.path)
        for name, path in self._paths.items():
            if name != MAIN:
                self._open(name)
            if os.fstat(self._files[name]).st_size < found.position.sizes.get(name, 0):
                raise Failure(f"{path} is damaged: use --restart to start over")
        self._expected_digest: str = found.position.digest
        if found.position.read:
            self.position = self.saved = found.position
            self._begun = True
            self._truncate()
        if found.service != self._identity.service:
            text = f"{found.service}, continues with {self._identity.service}, which has the same model"
            print_error(f"muse: note: {self.path} was started with {text}")

    def _begin(self) -> None:
        """Discards old results and writes the header."""
        # Without a checkpoint the other files would not be recognised as ours.
        write_checkpoint(self._checkpoint, self._identity, Position())
        for name in self._paths:
            if name not in self._files:
                self._open(name)
        for file in self._files.values():
            os.ftruncate(file, 0)
        self._write(MAIN, 0, self._header)
        self.position = Position(sizes={MAIN: len(self._header)})
        self._begun = True

    def _truncate(self) -> None:
        for name, file in self._files.items():
            os.ftruncate(file, self.position.sizes.get(name, 0))

    def _write(self, stream: str, offset: int, content: bytes) -> None:
        file, rest = self._files[stream], memoryview(content)
        os.lseek(file, offset, os.SEEK_SET)
        while rest:
            rest = rest[os.write(file, rest) :]

    def _cannot_write(self, failure: OSError) -> Failure:
        return cannot_write(self.path, failure)

    def _close(self) -> None:
        for name, file in self._files.items():
            if name != MAIN:
                os.close(file)
        self._files = {}
        self._main.close()


def spool_files(output: Path) -> list[Path]:
    """All files that the spool of an output may have. The first one has the lock, so it is deleted last."""
    main, checkpoint = part_path(output, MAIN), beside(output, "part.json")
    streams = (part_path(output, name) for name in (*SIDECARS, DISTINCT))
    return [*streams, beside(main, "new"), temporary(checkpoint), checkpoint, main]


def remove_published(output: Path) -> None:
    """Removes the spool of a command that was killed after it published its output."""
    if not part_path(output, MAIN).exists() and not beside(output, "part.json").exists():
        return
    with suppress(Failure):
        main = PartFile(output)
        try:
            found = read_checkpoint(beside(output, "part.json"))
            published = main.created or main.path.samefile(output)
            if found is not None and found.publishing is not None and published:
                for path in spool_files(output):
                    path.unlink(missing_ok=True)
        finally:
            main.close()


def _take_back(output: Path, found: Checkpoint) -> None:
    """Undoes the renames of a command that was stopped between them."""
    for name in found.publishing or ():
        if not part_path(output, name).exists():
            with suppress(FileNotFoundError):
                final_path(output, name).replace(part_path(output, name))


def part_path(output: Path, stream: str) -> Path:
    """The file of a stream while the output is incomplete."""
    if stream == MAIN:
        return beside(output, "part")
    return beside(output, f"part.{DISTINCT}" if stream == DISTINCT else f"{stream}.part")


def final_path(output: Path, stream: str) -> Path:
    return output if stream == MAIN else beside(output, stream)
