"""The command `muse`."""


class Failure(Exception):
    """An expected error: `muse` prints it in one line and exits with status 1."""
