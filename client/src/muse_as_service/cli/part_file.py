"""`OUTPUT.part`: the file of an incomplete output, and the lock on it."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

from . import Failure
from .files import beside, cannot_write, require_regular
from .standard_streams import print_error

if sys.platform == "win32":
    fcntl = None
else:
    import fcntl

NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL}
# Windows cannot rename or delete open files.
RENAMES_OPEN_FILES = fcntl is not None


def open_part(path: Path) -> tuple[int, bool]:
    """Opens a file to write, and creates it if it does not exist. Returns its descriptor, and whether it is new."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
    try:
        try:
            return os.open(path, flags | os.O_EXCL, 0o666), True
        except FileExistsError:
            require_regular(path)
            return os.open(path, flags, 0o666), False
    except OSError as failure:
        raise cannot_write(path, failure) from None


class PartFile:
    """The open and locked file. Nothing is written yet, so a file of another program remains as it is."""

    def __init__(self, output: Path) -> None:
        """Raises `Failure` if another command has locked it."""
        self.path = beside(output, "part")
        self.descriptor, self.created = open_part(self.path)
        try:
            if not self._lock():
                text = "its file system has no locks: do not run two commands with this OUTPUT at the same time"
                print_error(f"muse: warning: {self.path} is not locked, {text}")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Unlocks the file. Removes it if it was created and is still empty."""
        if self.descriptor >= 0:
            if self.created and not os.fstat(self.descriptor).st_size and self.has_path():
                self.path.unlink(missing_ok=True)
            os.close(self.descriptor)
            self.descriptor = -1

    def has_path(self) -> bool:
        """Whether the file still has its path; another process, or this one, may have renamed it."""
        try:
            return os.path.samestat(self.path.lstat(), os.fstat(self.descriptor))
        except FileNotFoundError:
            return False

    def reserve_path(self) -> bool:
        """After the file was renamed: locks its path again, unless another command has it already."""
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return False
        os.close(self.descriptor)
        self.descriptor, self.created = descriptor, True
        try:
            self._lock()
        except Failure:
            # Another command has opened and locked it first.
            os.close(self.descriptor)
            self.descriptor = -1
            return False
        return True

    def _lock(self) -> bool:
        """Returns False if the file system has no locks. Raises `Failure` if another command has the lock."""
        locked = True
        try:
            if fcntl is not None:
                fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._in_use() from None
        except OSError as failure:
            if failure.errno not in NO_LOCKS:
                raise Failure(f"cannot lock {self.path}: {failure.strerror}") from None
            locked = False
        # The other process may have renamed the file to its output in the meantime.
        if not self.has_path():
            raise self._in_use()
        return locked

    def _in_use(self) -> Failure:
        return Failure(f"{self.path} is in use by another 'muse': wait until it exits")
