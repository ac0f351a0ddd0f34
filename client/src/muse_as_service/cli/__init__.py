"""The command `muse`."""


class Failure(Exception):
    """Said in one line, with what to do; the command ends with status 1."""
