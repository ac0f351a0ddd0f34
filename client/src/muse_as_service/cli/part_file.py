"""`OUTPUT.part`: the file of an incomplete output, and the lock on it."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

from . import Failure
from .files import beside
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
            return os.open(path, flags, 0o666), False
    except OSError as failure:
        raise Failure(f"cannot write {path}: {failure.strerror}") from None


class PartFile:
    """The open and locked file. Nothing is written yet, so a file of another program remains as it is."""

    def __init__(self, output: Path) -> None:
        """Raises `Failure` if another command has locked it."""
        self.path = beside(output, "part")
        self.descriptor, self.created = open_part(self.path)
        try:
            self._lock()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Unlocks the file. Removes it if it was created and is still empty."""
        if self.descriptor >= 0:
            if self.created and not os.fstat(self.descriptor).st_size:
                self.path.unlink(missing_ok=True)
            os.close(self.descriptor)
            self.descriptor = -1

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._in_use() from None
        except OSError as failure:
            if failure.errno not in NO_LOCKS:
                raise Failure(f"cannot lock {self.path}: {failure.strerror}") from None
            text = "its file system has no locks: do not run two commands with this OUTPUT at the same time"
            print_error(f"muse: warning: {self.path} is not locked, {text}")
        # The other process may have renamed the file to its output in the meantime.
        if not (self.path.exists() and os.path.samestat(self.path.stat(), os.fstat(self.descriptor))):
            raise self._in_use()

    def _in_use(self) -> Failure:
        return Failure(f"{self.path} is in use by another 'muse': wait until it exits")
