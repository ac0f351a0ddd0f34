"""The command line interface of `muse`: options and error messages."""

from __future__ import annotations

import argparse
import signal
import sys
from functools import partial
from typing import Any, Optional

from .. import MUSEError, __version__
from . import Failure, authentication, bulk, doctor, info, keys, pipeline, usage
from .standard_streams import discard, print_error, reopen_closed

DESCRIPTION = "Computes sentence embeddings and tokens with MUSE as Service."


def run() -> None:
    """Entry point of the command; exits the process."""
    reopen_closed()
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        # nohup and others ignore it on purpose.
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        status = main()
        if sys.stdout is not None:
            sys.stdout.flush()
    except Failure as failure:
        sys.exit(_print_error(f"error: {failure}", failure.status))
    except MUSEError as error:
        sys.exit(_print_error(f"error: {error}"))
    except pipeline.Stopped as stopped:
        sys.exit(_print_error(str(stopped), 130))
    except KeyboardInterrupt:
        sys.exit(_print_error("stopped", 130))
    except BrokenPipeError:
        # The reader of the pipe has exited. Python would report an error when it flushes at exit.
        discard(1)
        sys.exit(1)
    except OSError as failure:
        # Commands convert the errors of their files to failures.
        discard(1)
        place = failure.filename or "cannot write standard output"
        sys.exit(_print_error(f"error: {place}: {failure.strerror}"))
    sys.exit(status)


def main(arguments: Optional[list[str]] = None) -> int:
    """Parses the arguments and runs the command. Raises `Failure`, `MUSEError` and `pipeline.Stopped`."""
    options = _parse(arguments)
    status: Optional[int] = options.run(options)
    return status or 0


def _parse(arguments: Optional[list[str]]) -> argparse.Namespace:
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and hasattr(options, "input") and all(name == "-" or not name.startswith("-") for name in rest):
        # argparse takes names only up to the next option: muse embed a.csv b.csv --column title OUTPUT
        options.input, options.output = [*options.input, options.output, *rest[:-1]], rest[-1]
    elif rest:
        advice = " (OUTPUT is the last of the names, without an option)" if {"-o", "--output"} & set(rest) else ""
        # The usage of the command.
        getattr(options, "parser", parser).error(f"unrecognized arguments: {' '.join(rest)}{advice}")
    return options


def _print_error(text: str, status: int = 1) -> int:
    print_error(f"muse: {text}")
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("muse", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"muse {__version__}")
    # Abbreviations of options in scripts could become ambiguous later.
    command_parser: Any = partial(argparse.ArgumentParser, allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=command_parser)

    authentication.add_commands(commands)
    doctor.add_command(commands)
    bulk.add_commands(commands)
    info.add_command(commands)
    keys.add_commands(commands)
    usage.add_command(commands)
    return parser
