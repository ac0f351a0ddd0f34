"""The command `muse`."""


class Failure(Exception):
    """An expected error: `muse` prints it in one line and exits with `status`."""

    status = 1


class OtherModel(Failure):
    """The service, or a file, has another model than required. Its results must not be mixed with those of that one."""

    status = 4


class Stopped(Exception):
    """Interrupted by Ctrl-C, SIGTERM or SIGHUP; the message contains the number of saved sentences."""
